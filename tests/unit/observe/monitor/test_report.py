import numpy as np
import pytest

from reflux.components.core.params.sections import Monitor
from reflux.components.core.shift import STATISTICS, Sample, ShiftTest, compare
from reflux.components.observe.monitor import report
from reflux.components.observe.monitor.report import Check

SAME = ShiftTest("contrast", 2000, 60, 0.02, 0.8, 1.0, False)
OTHER = ShiftTest("class balance", 500, 60, 0.4, 0.0004, 0.0008, True)


def check(*tests: ShiftTest, votes: tuple[bool, ...] = (True, False)) -> Check:
    return Check(3, "abc", 60, list(tests), list(votes), "All is well.")


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ((), "too few to compare"),
        ((SAME,), "like those that it was made of"),
        ((SAME, OTHER), "differ in class balance"),
    ],
)
def test_the_headline_says_how_new_images_compare(tests, words):
    headline = report.headline(check(*tests), m=3)
    assert headline.startswith("60 images are new since champion version 3")
    assert words in headline
    assert headline.endswith(". 1 of the last 2 checks found a difference. All is well.")


def test_the_report_has_a_row_for_each_test_and_its_level():
    text = report.markdown(check(SAME, OTHER), Monitor(alpha=0.05))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[3] == "| class balance | 500 | 60 | 0.4 | 0.0004 | 0.0008 | yes |"
    assert len({row.count("|") for row in rows}) == 1
    assert "in 5 % of checks at most. Data abc." in text
    assert "|" not in report.markdown(check(), Monitor())


def test_figures_are_named_after_the_tests():
    figures = report.metrics(check(SAME, OTHER))
    assert figures["new_images"] == 60
    assert figures["differs"] == 1
    assert (figures["p/class_balance"], figures["distance/contrast"]) == (0.0008, 0.02)


def test_each_test_has_a_panel():
    rng = np.random.default_rng(0)

    def sample() -> Sample:
        statistics = {name: rng.uniform(size=50) for name in STATISTICS}
        return Sample(("a", "b"), (8, 8, 1), np.array([30, 30]), statistics, np.array([30, 30]), rng.uniform(size=60))

    old, new = sample(), sample()
    tests = compare(old, new, 0.01)
    titles = [axes.get_title() for axes in report.figure(old, new, tests).axes]
    assert [title.split(":")[0] for title in titles] == [test.name for test in tests]
    assert len(tests) == 6
