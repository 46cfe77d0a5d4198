import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.core.export.latency import SideBySide
from reflux.components.core.significance import mcnemar
from reflux.components.registry.policy.comparison import ChampionEvaluation, Measured, advantage, compare, not_worse

EQUAL = ChampionEvaluation(
    version=3,
    artifact_sha256="b" * 64,
    test_changed=False,
    n=5000,
    accuracy=0.836,
    challenger_accuracy=0.84,
    difference=0.004,
    low=-0.002,
    high=0.012,
    p_value=0.31,
    size_bytes=100_000,
    challenger_size_bytes=100_000,
    latency_ms_p95=0.30,
    challenger_latency_ms_p95=0.29,
    faster=0.98,
)
RULE = {"margin": 0.01, "alpha": 0.05, "smaller": 1.1, "faster": 1.25}


def compared(labels, ours, theirs, timed=None, sizes=(1000, 1000), resamples=500, seed=0):
    challenger, champion = (
        Measured(sha, size, predicted) for sha, size, predicted in (("a", sizes[0], ours), ("b", sizes[1], theirs))
    )
    return compare(labels, challenger, champion, timed, 3, False, resamples, seed)


def of_counts(wins: int, losses: int, n: int) -> ChampionEvaluation:
    labels, ours, theirs = np.zeros((3, n), np.int64)
    theirs[:wins], ours[wins : wins + losses] = 1, 1
    return compared(labels, ours, theirs)


def test_a_comparison_holds_what_was_measured_of_both():
    labels = np.zeros(1000, np.int64)
    ours, theirs = labels.copy(), labels.copy()
    ours[:10], theirs[10:50] = 1, 1
    pair = Measured("a", 900, ours), Measured("b", 1000, theirs)
    found = compare(labels, *pair, SideBySide(1.0, 2.0, 1.8), 3, True, 500, 0, left_out=7)
    assert (found.version, found.artifact_sha256, found.n) == (3, "b", 1000)
    assert (found.challenger_accuracy, found.accuracy) == (0.99, 0.96)
    assert found.difference == pytest.approx(0.03)
    assert found.low < 0.03 < found.high
    assert found.p_value == mcnemar(ours == labels, theirs == labels)
    assert (found.challenger_size_bytes, found.size_bytes) == (900, 1000)
    assert (found.challenger_latency_ms_p95, found.latency_ms_p95, found.faster) == (1.0, 2.0, 1.8)
    assert (found.test_changed, found.left_out) == (True, 7)


@pytest.mark.parametrize(("low", "passed"), [(-0.0099, True), (-0.01, False), (-0.02, False), (0.001, True)])
def test_the_bound_must_lie_above_the_margin(low, passed):
    reason = not_worse(replace(EQUAL, low=low), 0.01)
    assert (reason.gate, reason.limit, reason.value, reason.passed) == ("champion", -0.01, low, passed)


def test_the_comparison_is_told_with_its_interval():
    assert not_worse(EQUAL, 0.01).sentence == (
        "Against the champion (version 3) on 5,000 test images: +0.40 points of accuracy, 95% interval -0.20 to +1.20; "
        "not worse by the margin of 1 points."
    )
    moved = not_worse(replace(EQUAL, test_changed=True, left_out=0), 0.01)
    assert moved.sentence.endswith(" The champion was promoted on another test split; it was scored again on this one.")


def test_images_that_the_champion_was_trained_on_are_said():
    assert (
        "12 test images that the champion was trained on were left out."
        in not_worse(replace(EQUAL, test_changed=True, left_out=12), 0.01).sentence
    )
    unknown = not_worse(replace(EQUAL, test_changed=True), 0.01)
    assert "Whether it was trained on some of these images is not known" in unknown.sentence
    assert "not known" not in not_worse(EQUAL, 0.01).sentence


@pytest.mark.parametrize("figure", ["low", "difference"])
def test_a_comparison_without_a_result_is_unknown(figure):
    assert not_worse(replace(EQUAL, **{figure: math.nan}), 0.01).passed is None
    assert not_worse(EQUAL, math.nan).passed is None


@pytest.mark.parametrize(("losses", "passed"), [(250, True), (253, False)])
def test_what_one_promotion_may_lose_is_much_less_than_the_margin(losses, passed):
    """On 5,000 images of which 10 % tell the two apart, losing 6 is too much, as the page on promotion says."""
    assert not_worse(of_counts(500 - losses, losses, 5000), 0.01).passed is passed


def test_too_few_images_to_show_it_are_said_with_the_number_it_takes():
    equal = [of_counts(0, 0, n) for n in (475, 476)]
    assert [not_worse(comparison, 0.01).passed for comparison in equal] == [False, True]
    assert "So few images can't show it even of equal models: it takes 476." in not_worse(equal[0], 0.01).sentence


def test_models_that_differ_are_said_to_need_more_images():
    """Equal models that differ on 10 % need 3,972: so says the bound itself."""
    few, enough = (of_counts(n // 20, n // 20, n) for n in (3900, 4500))
    assert (not_worse(few, 0.01).passed, not_worse(enough, 0.01).passed) == (False, True)
    assert few.disagreement == pytest.approx(0.1)
    assert "even of equal models that differ on 10 % of the images: it takes 3,972." in not_worse(few, 0.01).sentence
    assert "So few" not in not_worse(of_counts(100, 300, 4000), 0.01).sentence
    assert "So few" not in not_worse(of_counts(300, 40, 3000), 0.01).sentence  # shown, though equal models need more


def test_neither_better_nor_smaller_nor_faster_is_no_reason_to_replace():
    reason = advantage(EQUAL, **RULE)
    assert (reason.gate, reason.passed) == ("advantage", False)
    assert reason.sentence == (
        "Not worse, but neither better (McNemar p = 0.31, not below 0.05) nor smaller (1 times, not 1.1) nor faster "
        "(at least 0.98 times, not 1.25) than version 3: there is no reason to replace it."
    )
    assert advantage(replace(EQUAL, low=-0.02), **RULE).sentence.startswith("Neither better")


@pytest.mark.parametrize(
    ("changes", "passed", "words"),
    [
        ({"p_value": 0.04}, True, "It is better (McNemar p = 0.04) than version 3."),
        ({"p_value": 0.05}, False, "p = 0.05, not below 0.05"),
        ({"p_value": 0.04, "difference": -0.004}, False, "neither better"),
        ({"challenger_size_bytes": 90_000}, True, "It is smaller (1.111 times) than version 3."),
        ({"challenger_size_bytes": 91_000}, False, "smaller (1.099 times, not 1.1)"),
        ({"faster": 1.25}, True, "It is faster (at least 1.25 times) than version 3."),
        ({"faster": 1.249999}, False, "faster (at least 1.249999 times, not 1.25)"),
        (
            {"p_value": 0.001, "faster": 2.0},
            True,
            "It is better (McNemar p = 0.001) and faster (at least 2 times) than version 3.",
        ),
    ],
)
def test_one_advantage_is_enough(changes, passed, words):
    reason = advantage(replace(EQUAL, **changes), **RULE)
    assert reason.passed is passed
    assert words in reason.sentence


@pytest.mark.parametrize(
    "changes", [{"p_value": math.nan}, {"challenger_size_bytes": 0}, {"faster": None}, {"faster": math.nan}]
)
def test_an_advantage_that_was_not_measured_is_unknown_unless_there_is_another(changes):
    reason = advantage(replace(EQUAL, **changes), **RULE)
    assert reason.passed is None
    assert reason.sentence.endswith("a reason to replace it is not known.")
    won = {"faster": 2.0} if "faster" not in changes else {"p_value": 0.01}
    assert advantage(replace(EQUAL, **(changes | won)), **RULE).passed is True


def test_the_comparison_holds_both_files_as_they_are_now():
    labels = np.array([0, 1, 2, 0])
    timed = SideBySide(first_ms_p95=0.2, second_ms_p95=0.4, faster=1.9)
    comparison = compared(labels, np.array([0, 1, 2, 1]), np.array([0, 1, 0, 1]), timed, sizes=(500, 1000))
    assert (comparison.challenger_accuracy, comparison.accuracy, comparison.difference, comparison.n) == (
        0.75,
        0.5,
        0.25,
        4,
    )
    assert (comparison.challenger_size_bytes, comparison.size_bytes, comparison.smaller) == (500, 1000, 2.0)
    assert (comparison.challenger_latency_ms_p95, comparison.latency_ms_p95, comparison.faster) == (0.2, 0.4, 1.9)
    assert (comparison.version, comparison.artifact_sha256) == (3, "b")


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_test_images_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    labels, ours, theirs = rng.integers(0, 3, (3, 100))
    order = rng.permutation(100)
    assert compared(labels, ours, theirs) == compared(labels[order], ours[order], theirs[order])


def test_few_images_that_differ_do_not_make_the_bound_too_sure():
    """Nothing lost among 200 images: the bootstrap's interval has no width, and rules nothing out."""
    comparison = of_counts(0, 0, 200)
    assert (comparison.difference, comparison.high) == (0.0, 0.0)
    assert comparison.low == pytest.approx(-4.8 / 200, rel=0.03)


def test_with_many_the_bound_is_the_bootstraps():
    comparison = of_counts(300, 250, 5000)
    deviation = math.sqrt((550 / 5000 - 0.01**2) / 5000)
    assert comparison.low == pytest.approx(0.01 - 1.96 * deviation, abs=0.0006)
    assert comparison.high == pytest.approx(0.01 + 1.96 * deviation, abs=0.0006)
