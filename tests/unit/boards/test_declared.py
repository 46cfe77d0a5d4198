from reflux.components.boards.declared import ALL, EXPECTATIONS, PICTURES
from reflux.components.boards.view import LIMIT
from reflux.components.validate import suite


def test_the_boards_fit_next_to_a_hundred_other_metrics():
    assert len({each.slug for each in ALL}) == len(ALL) == 5
    for each in ALL:
        assert len(each.view(1, [f"data/failed/some_expectation_{n}" for n in range(100)], PICTURES, 0, 0)) < LIMIT


def test_every_expectation_is_on_the_board_of_the_data():
    checks = suite.image_checks() + suite.look_alike_checks(8) + suite.label_checks(["a"]) + suite.count_checks()
    checks += suite.recall_checks() + suite.shift_checks(0.1) + suite.file_checks()
    assert [check.name for check in checks] == list(EXPECTATIONS)
