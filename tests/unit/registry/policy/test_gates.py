import math

import pytest

from components.core.contract import FIGURES
from components.core.params.sections import Gates
from components.registry.policy.gates import gated_figures, thresholds


def metrics(**measured) -> dict:
    values = {"accuracy": 0.84, "worst_class_recall": 0.5, "size_bytes": 100 * 1024, "latency_ms_p95": 0.3}
    return {"shipped": {"onnx": {name: value for name, value in (values | measured).items() if value is not None}}}


def judged(gates, **measured):
    return thresholds(gated_figures(metrics(**measured)), gates)


def test_each_side_of_a_gate_says_its_numbers():
    gates = {"accuracy": {"min": 0.8}, "size_kb": {"min": 10.0, "max": 50.0}, "latency_ms_p95": {"max": 0.3}}
    assert [(reason.passed, reason.sentence) for reason in judged(gates)] == [
        (True, "Accuracy 0.84 reaches the minimum of 0.8."),
        (True, "Size 100 KB reaches the minimum of 10 KB."),
        (False, "Size 100 KB exceeds the maximum of 50 KB."),
        (True, "Latency p95 0.3 ms is within the maximum of 0.3 ms."),
    ]


@pytest.mark.parametrize(
    ("bound", "accuracy", "passed"),
    [
        ({"min": 0.8}, 0.8, True),
        ({"min": 0.8}, 0.7999, False),
        ({"max": 0.8}, 0.8, True),
        ({"max": 0.8}, 0.8001, False),
        ({"min": 0.8, "max": 0.8}, 0.8, True),
    ],
)
def test_a_figure_that_equals_its_limit_passes(bound: dict[str, float], accuracy: float, passed: bool):
    assert {reason.passed for reason in judged({"accuracy": bound}, accuracy=accuracy)} == {passed}


def test_a_near_miss_is_shown_with_the_digits_that_tell():
    (missed,) = judged({"accuracy": {"min": 0.8}}, accuracy=0.79999999)
    assert (missed.gate, missed.side, missed.limit, missed.value, missed.passed) == (
        "accuracy",
        "min",
        0.8,
        0.79999999,
        False,
    )
    assert missed.sentence == "Accuracy 0.79999999 is below the minimum of 0.8."


@pytest.mark.parametrize("figure", ["corrupted", "noise", "blur", "brightness", "jpeg"])
def test_accuracy_under_corruptions_can_be_gated(figure):
    gates = {f"{figure}_accuracy": {"min": 0.7}}
    assert judged(gates, **{f"{figure}_accuracy": 0.71})[0].passed is True
    assert judged(gates, **{f"{figure}_accuracy": 0.69})[0].passed is False
    assert judged(gates)[0].passed is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.9", True])
def test_a_figure_that_was_not_measured_is_unknown(value):
    (reason,) = judged({"accuracy": {"min": 0.8}}, accuracy=value)
    assert (reason.passed, reason.value) == (None, None)
    assert reason.sentence == "Accuracy was not measured, and the minimum is 0.8."


def test_a_limit_that_is_no_number_is_unknown():
    assert judged({"accuracy": {"min": math.nan}})[0].passed is None


def test_an_unset_side_is_no_gate():
    assert [reason.gate for reason in judged({"accuracy": {"min": 0.8, "max": None}})] == ["accuracy"]


def test_size_is_in_units_of_1024_bytes_and_what_was_not_measured_is_absent():
    assert gated_figures(metrics(size_bytes=2048, accuracy=None)) == {
        "size_kb": 2.0,
        "worst_class_recall": 0.5,
        "latency_ms_p95": 0.3,
    }
    assert gated_figures({}) == {}


def test_every_gate_of_the_params_limits_a_figure_of_the_contract():
    assert set(Gates.model_fields) <= set(FIGURES)
