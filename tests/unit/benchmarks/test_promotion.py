"""Simulated students of known accuracy: how often the decision errs, and how often it sees a gain."""

from statistics import NormalDist

import pytest
from scipy import stats

from benchmarks.promotion import RULE, promotions, rates

pytestmark = pytest.mark.long

LEVEL = 0.025  # one-sided, of the non-inferiority bound; McNemar's alpha / 2 for "better"


@pytest.mark.parametrize(("n", "disagreement"), [(500, 0.01), (500, 0.04), (1000, 0.02), (1000, 0.1)])
def test_a_student_that_is_worse_by_the_margin_is_promoted_at_most_at_the_stated_level(n, disagreement):
    """10,000 draws; the student is smaller, so that no more than non-inferiority is asked."""
    promoted = rates(n, disagreement, -RULE.margin)
    assert promoted["smaller"] <= LEVEL
    assert promoted["same size"] <= promoted["smaller"]


def promoted_of_500(disagreement: float, difference: float, route: int) -> float:
    """The probability of a promotion: of every outcome of 500 images."""
    n, chances = 500, [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    outcomes = [(wins, losses) for wins in range(40) for losses in range(40)]
    likely = [stats.multinomial.pmf([w, x, n - w - x], n, chances) for w, x in outcomes]
    assert sum(likely) == pytest.approx(1, abs=1e-4)
    return sum(p for p, counts in zip(likely, outcomes, strict=True) if p > 1e-9 and promotions(*counts, n)[route])


@pytest.mark.parametrize("disagreement", [0.01, 0.02, 0.05])
def test_that_level_holds_exactly_where_few_images_differ(disagreement):
    assert promoted_of_500(disagreement, -RULE.margin, route=0) <= LEVEL


@pytest.mark.parametrize("disagreement", [0.01, 0.02, 0.05])
def test_an_equal_student_of_equal_size_is_promoted_at_most_at_the_stated_level_exactly(disagreement):
    assert promoted_of_500(disagreement, 0.0, route=1) <= LEVEL


def test_the_bootstrap_alone_would_not_keep_that_level_when_few_images_differ():
    promoted = rates(200, 0.01, -0.01)
    assert promoted["smaller, by the bootstrap alone"] == pytest.approx(0.99**200, abs=0.01)  # no loss was drawn
    assert promoted["smaller"] == 0.0


def test_a_student_that_is_worse_and_not_smaller_is_hardly_ever_promoted():
    assert rates(1000, 0.1, -0.005)["same size"] <= LEVEL / 2


@pytest.mark.parametrize(("difference", "route"), [(0.0, "smaller"), (0.01, "smaller"), (0.02, "same size")])
def test_power_is_what_the_normal_law_says(difference, route):
    n, disagreement = 2000, 0.1
    deviation = ((disagreement - difference**2) / n) ** 0.5
    distance = difference + (RULE.margin if route == "smaller" else 0)
    expected = NormalDist().cdf(distance / deviation - NormalDist().inv_cdf(1 - LEVEL))
    assert rates(n, disagreement, difference, trials=2000)[route] == pytest.approx(expected, abs=0.04)


def test_power_grows_with_the_true_difference():
    promoted = [rates(1000, 0.1, difference, trials=2000)["same size"] for difference in (0.0, 0.02, 0.04)]
    assert promoted == sorted(promoted)
    assert promoted[-1] > 0.9


def test_a_draw_is_decided_as_the_pipeline_decides():
    assert promotions(0, 0, 475)[0] is False
    assert promotions(0, 0, 476)[0] is True
    assert promotions(0, 0, 5000) == (True, False, True)
    assert promotions(300, 200, 5000) == (True, True, True)
    assert promotions(200, 300, 5000) == (False, False, False)
