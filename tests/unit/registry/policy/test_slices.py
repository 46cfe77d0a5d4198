import math

import pytest
from statsmodels.stats.proportion import proportion_confint

from reflux.components.registry.policy.slices import reasons

CLASSES = {
    "shirt": {"n": 500, "accuracy": 0.51},
    "coat": {"n": 500, "accuracy": 0.7},
    "boot": {"n": 500, "accuracy": 0.95},
    "bag": {"n": 500, "accuracy": 0.9},
}


def judged(values, bound, column="class", min_count=30):
    (reason,) = reasons({column: values}, {column: {"accuracy": bound}}, min_count)
    return reason


def test_every_slice_must_keep_to_the_limit_and_the_worst_are_named():
    passed = judged(CLASSES, {"min": 0.5})
    assert (passed.gate, passed.side, passed.limit, passed.value, passed.passed) == (
        "slices.class.accuracy",
        "min",
        0.5,
        0.51,
        True,
    )
    assert passed.sentence == (
        "The accuracy of each of 4 slices by class reaches the minimum of 0.5; "
        "the worst: shirt 0.51 (n = 500), coat 0.7 (n = 500), bag 0.9 (n = 500). On 500 images, the fewest of a slice, "
        "a slice that is truly at 0.495 passes in 43 % of draws."
    )
    missed = judged(CLASSES, {"min": 0.6})
    assert (missed.value, missed.passed) == (0.51, False)
    assert missed.sentence == (
        "The accuracy of 1 of 4 slices by class is below the minimum of 0.6: shirt 0.51 (n = 500)."
    )


@pytest.mark.parametrize("bound", [{"min": 0.51}, {"max": 0.95}])
def test_a_slice_that_equals_the_limit_passes(bound: dict[str, float]):
    assert judged(CLASSES, bound).passed is True


def test_of_hundreds_of_slices_three_are_named():
    many = {f"class {i}": {"n": 100, "accuracy": i / 1000} for i in range(300)}
    missed = judged(many, {"min": 0.9})
    assert missed.passed is False
    assert missed.sentence == (
        "The accuracy of 300 of 300 slices by class is below the minimum of 0.9: "
        "class 0 0 (n = 100), class 1 0.001 (n = 100), class 2 0.002 (n = 100) and 297 more."
    )


def test_a_slice_of_few_images_is_reported_and_not_gated():
    few = judged(CLASSES | {"glove": {"n": 29, "accuracy": 0.1}}, {"min": 0.5})
    assert (few.value, few.passed) == (0.51, True)
    assert few.sentence.endswith("Not gated, for fewer than 30 images: glove 0.1 (n = 29).")
    assert judged(CLASSES | {"glove": {"n": 30, "accuracy": 0.1}}, {"min": 0.5}).passed is False


def test_a_column_that_was_not_measured_is_unknown():
    (reason,) = reasons({"class": CLASSES}, {"camera": {"accuracy": {"min": 0.5}}}, 30)
    assert (reason.gate, reason.value, reason.passed) == ("slices.camera.accuracy", None, None)
    assert reason.sentence == (
        "The accuracy by camera is unknown: the column was not measured, and the minimum is 0.5."
    )


def test_a_gate_that_looks_at_no_slice_is_unknown():
    reason = judged({"shirt": {"n": 10, "accuracy": 0.9}}, {"min": 0.5})
    assert reason.passed is None
    assert "no slice of it has 30 test images" in reason.sentence


@pytest.mark.parametrize("figure", [None, math.nan, "0.9"])
def test_a_large_slice_without_a_figure_is_unknown_and_named_first(figure):
    reason = judged(CLASSES | {"hat": {"n": 40, "accuracy": figure}}, {"min": 0.5})
    assert (reason.value, reason.passed) == (None, None)
    assert "hat unknown (n = 40), shirt 0.51" in reason.sentence


def test_a_maximum_looks_at_the_highest():
    reason = judged(CLASSES, {"max": 0.92})
    assert (reason.side, reason.value, reason.passed) == ("max", 0.95, False)
    assert "1 of 4 slices by class exceeds the maximum of 0.92: boot 0.95" in reason.sentence


def test_with_a_confidence_the_bounds_of_all_slices_hold_together():
    """Four slices: each bound is at 1 - 0.05 / 4, so that all four hold with 95 %."""
    low = proportion_confint(255, 500, alpha=2 * 0.05 / 4, method="beta")[0]
    assert low < proportion_confint(255, 500, alpha=2 * 0.05, method="beta")[0] - 0.01
    passed, missed = (judged(CLASSES, {"min": low + x, "confidence": 0.95}) for x in (-1e-6, 1e-6))
    assert (passed.passed, missed.passed) == (True, False)
    assert passed.value == pytest.approx(low)
    assert missed.sentence.startswith(
        "The accuracy of 1 of 4 slices by class, with 95 % confidence for all of them together, is below the minimum "
    )
    assert missed.sentence.endswith(f"shirt 0.51 (n = 500, bound {low:.4g}).")


def test_slices_without_or_with_all_images_right_have_a_bound_and_others_outside_of_a_share_have_none():
    bound = {"min": 0.001, "confidence": 0.95}
    assert judged({"none": {"n": 40, "accuracy": 0.0}}, bound).passed is False
    assert judged({"all": {"n": 40, "accuracy": 1.0}}, bound).value == pytest.approx(0.05 ** (1 / 40))
    impossible = judged({"odd": {"n": 40, "accuracy": 1.5}}, bound)
    assert (impossible.passed, impossible.value) == (None, None)


def test_the_slice_with_the_lowest_bound_is_the_worst():
    values = {"many": {"n": 5000, "accuracy": 0.60}, "few": {"n": 40, "accuracy": 0.65}}
    reason = judged(values, {"min": 0.5, "confidence": 0.95})
    assert reason.passed is False
    assert "1 of 2 slices" in reason.sentence
    assert ": few 0.65 (n = 40" in reason.sentence
    assert reason.value == pytest.approx(proportion_confint(26, 40, alpha=2 * 0.05 / 2, method="beta")[0])


def test_the_chance_of_the_undeserving_is_that_of_the_smallest_slice():
    reason = judged(CLASSES | {"hat": {"n": 40, "accuracy": 0.9}}, {"min": 0.5})
    assert (
        "On 40 images, the fewest of a slice, a slice that is truly at 0.495 passes in 54 % of draws."
        in reason.sentence
    )


def test_slices_that_are_not_gated_do_not_count_for_the_correction():
    small = {f"small {i}": {"n": 10, "accuracy": 0.9} for i in range(20)}
    bound = {"min": 0.4, "confidence": 0.95}
    assert judged(CLASSES | small, bound).value == judged(CLASSES, bound).value


def test_a_maximum_with_a_confidence_looks_at_the_upper_bounds():
    high = proportion_confint(475, 500, alpha=2 * 0.05 / 4, method="beta")[1]
    assert [judged(CLASSES, {"max": high + x, "confidence": 0.95}).passed for x in (1e-6, -1e-6)] == [True, False]


def test_a_miss_that_the_worst_of_many_slices_shows_by_chance_is_told_as_that():
    values = {str(i): {"n": 30, "accuracy": 0.6} for i in range(9)} | {"worst": {"n": 30, "accuracy": 12 / 30}}
    missed = judged(values, {"min": 0.5})
    assert missed.passed is False
    assert missed.sentence.endswith("worst 0.4 (n = 30). That may be chance (p = 1, corrected for 10 slices).")
    alone = judged({"worst": values["worst"]}, {"min": 0.5})
    assert alone.sentence.endswith("worst 0.4 (n = 30). That may be chance (p = 0.18).")
    clear = judged(values | {"worst": {"n": 300, "accuracy": 0.3}}, {"min": 0.5})
    assert "chance" not in clear.sentence


def test_no_gate_is_no_reason():
    assert reasons({"class": CLASSES}, {}, 30) == []
