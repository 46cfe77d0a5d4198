import pytest

from reflux.components.core.registry import Registry


def test_a_name_is_taken_only_once():
    numbers = Registry("numbers", one=1)
    numbers.add("two", 2)
    with pytest.raises(ValueError, match=r"^Two numbers are named one\.$"):
        numbers.add("one", 3)
    assert numbers == {"one": 1, "two": 2}


def test_a_decorator_registers_what_is_made_of_a_function_and_leaves_the_function():
    names = Registry[str]("names")

    @names.registers("mine", lambda function: function.__name__)
    def doubled(x: int) -> int:
        return 2 * x

    assert names == {"mine": "doubled"}
    assert doubled(2) == 4
