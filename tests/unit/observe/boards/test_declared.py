import pytest

from reflux.components.observe.boards.declared import BOARDS, EXPECTATIONS, HEALTH, PICTURES, board
from reflux.components.observe.boards.view import LIMIT
from reflux.components.stages.validate import suite


def test_the_boards_fit_next_to_a_hundred_other_metrics():
    assert len(BOARDS) == 5
    for each in BOARDS.values():
        assert len(each.view(1, [f"data/failed/some_expectation_{n}" for n in range(100)], PICTURES, 0, 0)) < LIMIT


def test_a_board_has_a_slug_of_its_own():
    with pytest.raises(ValueError, match="Two boards are named reflux-retraining-health"):
        board(HEALTH)


def test_every_expectation_is_on_the_board_of_the_data():
    checks = suite.image_checks() + suite.look_alike_checks(8) + suite.label_checks(["a"]) + suite.count_checks()
    checks += suite.recall_checks() + suite.shift_checks(0.1) + suite.file_checks()
    assert [check.name for check in checks] == list(EXPECTATIONS)
