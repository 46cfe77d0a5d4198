import io

import pytest
from rich.console import Console

from reflux.flows.report.tune import markdown, nearest, reason, sentences, table
from tests.unit.advice.tune.test_result import GATES, result, row

COUNTS = {"trained": 3, "stopped": 4, "refused": 5, "repeated": 2}
FOUND = result(
    row(0, 0.84, 190, 0.84, 0.84),
    row(1, 0.85, 60, 0.844, 0.846, ships="onnx-int8"),
    row(2, 0.6, 9),
    row(3, 0.5, 400),
    counts=COUNTS,
    seconds=125.0,
    importance={"width": 0.6, "lr": 0.3, "steps": 0.06, "mixup": 0.04},
)


def lines(found) -> list[str]:
    screen = Console(file=io.StringIO(), width=160)
    screen.print(table(found))
    return [" ".join(line.split()) for line in screen.file.getvalue().splitlines()]


def test_the_table_has_the_front_with_what_can_be_chosen_and_why_the_rest_can_not():
    assert lines(FOUND)[1:] == [
        "2 net2 28 fp32 9.0 0.09 60.0 % 100 fails accuracy",
        "1 net1 28 int8 60.0 0.60 85.0 % 84.5 % (2) 100 smallest, best, knee",
        "0 net0 28 fp32 190.0 1.90 84.0 % 84.0 % (2) 100 present",
    ]


def test_a_flow_runs_page_has_the_table_and_the_sentences():
    table, *said = markdown(FOUND).split("\n\n")
    row = "| 1 | net1 | 28 | int8 | 60.0 | 0.60 | 85.0 % | 84.5 % (2) | 100 | smallest, best, knee |"
    assert table.splitlines()[3] == row
    assert said == sentences(FOUND)


def test_the_sentences_say_how_lucky_the_search_was_and_what_was_not_opened():
    said = " ".join(sentences(FOUND))
    assert "3 students trained, 4 stopped early, 5 not trained" in said
    assert "2 trained again with another seed, in 2 min 05 s." in said
    assert "the test split was not opened" in said
    assert "what was chosen lost 0.5 points when it was trained again" in said
    assert "What passes also reaches the 84.0 % of the present student, which was trained with several seeds" in said
    assert "What decided accuracy most: width 60 %, lr 30 %, steps 6 %." in said


@pytest.mark.parametrize(("again", "what"), [(0.855, "gained 0.5"), (0.8501, "lost 0.0"), (0.8499, "lost 0.0")])
def test_a_search_without_bad_luck_has_lost_nothing(again, what):
    said = " ".join(sentences(result(row(0, 0.84, 190, 0.84), row(1, 0.85, 60, again), counts=COUNTS)))
    assert f"what was chosen {what} points when it was trained again" in said
    assert "What passes also reaches the 84.0 % of the present student." in said, "it has one seed"


def test_where_none_passes_the_nearest_and_its_gate_are_named():
    found = result(row(1, 0.79, 60), row(2, 0.5, 9), present=None, counts=COUNTS)
    assert nearest(found) == (
        "the nearest is trial 1. Accuracy 0.79 is below the minimum of 0.8. "
        "Search longer, widen tune.space, or loosen registry.gates."
    )
    assert f"No student passes: {nearest(found)}" in sentences(found)
    assert found.gates == GATES


def test_where_only_the_present_student_passes_it_is_said():
    said = sentences(result(row(0, 0.84, 190, 0.84), row(1, 0.83, 60), counts=COUNTS))
    assert "No other student is as good as the present one: search longer, as the same command goes on." in said


def test_the_reason_has_the_figures_and_what_they_rest_on():
    why = "reflux tune, trial 1, smallest and best and knee that passes: 60.0 KB, 84.5% of 500 validation images "
    why += "(mean of 2 seeds)"
    assert reason(FOUND, FOUND.rows[1]) == why
    assert "on request: 9.0 KB, 60.0% of 500 validation images (the search's own seed)" in reason(FOUND, FOUND.rows[2])
