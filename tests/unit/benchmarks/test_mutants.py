from benchmarks.mutants import MUTATED, PACKAGE, ROOT, TESTS, undecorated

SOURCE = """
def twice(function):
    return lambda x: 2 * function(x)

def plus(number):
    return lambda function: lambda x: function(x) + number

@plus(1)
@twice
def square(x):
    return x * x

nine = square(2)
"""


def test_a_decorator_is_applied_below_its_function():
    plain: dict = {}
    exec(undecorated(SOURCE), plain)  # noqa: S102 - the test's own source
    assert "@" not in undecorated(SOURCE)
    assert plain["nine"] == 9
    assert plain["square"](3) == 19


def test_what_is_changed_and_what_should_find_it_are_there():
    assert all(list((PACKAGE / "components").glob(pattern)) for pattern in MUTATED)
    assert all((ROOT / test).exists() for test in TESTS)
