import math

import pytest

from reflux.components.core.contract import FIGURES
from reflux.components.core.params.registry import Gates
from reflux.components.core.significance import score_bound
from reflux.components.registry.policy.gates import DeviceReport, devices, gated_figures, thresholds


def metrics(**measured) -> dict:
    values = {"accuracy": 0.84, "worst_class_recall": 0.5, "size_bytes": 100 * 1024, "latency_ms_p95": 0.3}
    shipped = {name: value for name, value in (values | measured).items() if value is not None}
    return {"test": {"n": 5000}, "shipped": {"onnx": shipped}}


def judged(gates, **measured):
    return thresholds(metrics(**measured), gates)


def sure(bound, n=5000, **measured):
    (reason,) = thresholds(metrics(**measured) | {"test": {"n": n}}, {"accuracy": bound})
    return reason


def test_each_side_of_a_gate_says_its_numbers():
    gates = {"accuracy": {"min": 0.8}, "size_kb": {"min": 10.0, "max": 50.0}, "latency_ms_p95": {"max": 0.3}}
    assert [(reason.passed, reason.sentence) for reason in judged(gates)] == [
        (
            True,
            "Accuracy 0.84 reaches the minimum of 0.8. On 5,000 test images a model that is truly at 0.795 passes in "
            "20 % of draws.",
        ),
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


def test_a_gate_with_a_confidence_compares_the_bound():
    """4,090 of 5,000: 0.818, of which Clopper and Pearson's lower bound at 95 % is 0.80879."""
    passed, missed = (sure({"min": limit, "confidence": 0.95}, accuracy=0.818) for limit in (0.808, 0.81))
    assert (passed.passed, missed.passed) == (True, False)
    assert passed.value == missed.value == pytest.approx(0.80879, abs=1e-5)
    assert passed.sentence == (
        "Accuracy 0.818, with 95 % confidence at least 0.8088, reaches the minimum of 0.808. On 5,000 test images a "
        "model that is truly at 0.803 passes in 0.52 % of draws."
    )
    assert missed.sentence == "Accuracy 0.818, with 95 % confidence at least 0.8088, is below the minimum of 0.81."


def test_a_maximum_with_a_confidence_compares_the_upper_bound():
    passed, missed = (sure({"max": limit, "confidence": 0.95}, accuracy=0.818) for limit in (0.828, 0.826))
    assert (passed.passed, missed.passed) == (True, False)
    assert passed.value == pytest.approx(0.82694, abs=1e-5)


def test_fewer_images_show_less():
    assert sure({"min": 0.8, "confidence": 0.95}, n=5000, accuracy=0.82).passed
    assert not sure({"min": 0.8, "confidence": 0.95}, n=500, accuracy=0.82).passed


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_all_or_no_images_right_have_a_bound_too(accuracy):
    low, high = (sure({side: 0.5, "confidence": 0.95}, accuracy=accuracy).value for side in ("min", "max"))
    assert 0 <= low <= accuracy <= high <= 1
    assert high - low == pytest.approx(0.0006, abs=1e-4)  # about 3 of 5,000


def test_only_shares_of_images_have_a_bound():
    assert judged({"latency_ms_p95": {"max": 1, "confidence": 0.95}})[0].passed is None
    assert sure({"min": 0.5, "confidence": 0.95}, accuracy=1.5).passed is None


def test_a_bound_of_an_unknown_number_of_images_is_unknown():
    (reason,) = thresholds({"shipped": metrics()["shipped"]}, {"accuracy": {"min": 0.8, "confidence": 0.95}})
    assert (reason.passed, reason.value) == (None, None)
    assert reason.sentence == "Accuracy 0.84 has no known bound at 95 %, and the minimum is 0.8."


def test_the_chance_of_the_undeserving_is_told_of_shares_of_the_images_alone():
    latency, size, recall = judged(
        {"latency_ms_p95": {"min": 0.1}, "size_kb": {"min": 1}, "worst_class_recall": {"min": 0.4}}
    )
    assert not any("draws" in reason.sentence for reason in (latency, size, recall))
    assert sure({"min": 0.8}, n=10**7, accuracy=0.84).sentence.endswith("passes in less than 0.01 % of draws.")
    assert "draws" not in sure({"min": 0.9}, accuracy=0.84).sentence


GAIN = {"accuracy": 0.02, "p_value": 1e-9, "wins": 200, "losses": 100}


@pytest.mark.parametrize(
    ("bound", "passed", "words"),
    [
        ({"min": 0.02}, True, "Gain over the control 0.02 reaches the minimum of 0.02."),
        ({"min": 0.0201}, False, "Gain over the control 0.02 is below the minimum of 0.0201."),
        ({"min": 0.01, "confidence": 0.975}, True, "with 97.5 % confidence at least 0.0132, reaches the minimum"),
        ({"min": 0.015, "confidence": 0.975}, False, "is below the minimum of 0.015."),
        ({"max": 0.03, "confidence": 0.975}, True, "with 97.5 % confidence at most 0.02701, is within the maximum"),
    ],
)
def test_the_gain_over_the_control_can_be_gated(bound, passed, words):
    (reason,) = thresholds(metrics() | {"gain": GAIN}, {"gain": bound})
    assert reason.passed is passed
    assert words in reason.sentence


@pytest.mark.parametrize("confidence", [0.8, 0.975])
def test_the_bound_of_a_gain_is_one_sided_at_its_confidence(confidence):
    low, high = (
        thresholds(metrics() | {"gain": GAIN}, {"gain": {side: 0.0, "confidence": confidence}})[0].value
        for side in ("min", "max")
    )
    assert low == pytest.approx(score_bound(200, 100, 5000, 2 * confidence - 1))
    assert high == pytest.approx(-score_bound(100, 200, 5000, 2 * confidence - 1))


def test_a_gain_that_was_not_measured_or_not_counted_is_unknown():
    assert judged({"gain": {"min": 0.0}})[0].passed is None
    for counted in ({}, {"wins": 200}, {"losses": 100}):
        gain = {"accuracy": 0.02} | counted
        (reason,) = thresholds(metrics() | {"gain": gain}, {"gain": {"min": 0.0, "confidence": 0.9}})
        assert reason.passed is None


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


ON_PI = {"latency_ms_p95": {"max": 20, "device": "pi5"}}


def test_a_gate_on_a_device_takes_the_figure_of_its_report_not_the_one_of_this_machine():
    assert devices({**ON_PI, "accuracy": {"min": 0.8}}) == ["pi5"]
    reports = {"pi5": DeviceReport(3, 7.5, origin="onnxruntime 1.32.0, run 3c"), "phone": DeviceReport(3, 99.0)}
    (passed,) = thresholds(metrics(latency_ms_p95=50), ON_PI, reports)
    words = "Latency p95 on pi5 7.5 ms is within the maximum of 20 ms (onnxruntime 1.32.0, run 3c)."
    assert (passed.gate, passed.value, passed.passed, passed.sentence) == ("latency_ms_p95", 7.5, True, words)
    (missed,) = thresholds(metrics(), ON_PI, {"pi5": DeviceReport(3, 20.5, 0.875, "run 3c")})
    assert missed.passed is False
    assert missed.sentence == (
        "Latency p95 on pi5 20.5 ms exceeds the maximum of 20 ms (run 3c). There it answers 87.5 % of the images as it "
        "does here."
    )


@pytest.mark.parametrize("reports", [{}, {"phone": DeviceReport(3, 7.5)}, {"pi5": DeviceReport(3)}])
def test_without_a_report_of_the_device_its_gate_is_unknown(reports):
    (reason,) = thresholds(metrics(), ON_PI, reports)
    assert (reason.passed, reason.value) == (None, None)
    assert reason.sentence.startswith("Latency p95 on pi5 is not known, and the maximum is 20 ms: this waits for a ")
    assert ("`reflux bench 3 --export DIR`" in reason.sentence) == ("pi5" in reports)
