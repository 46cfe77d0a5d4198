import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.registry.gates import ChampionEvaluation, compare, decide, figures

SHA = "a" * 64
FIGURES = ("accuracy", "macro_f1", "worst_class_recall", "ece", "latency_ms_p95", "params", "size_bytes")


def metrics(**measured: float | None) -> dict:
    values = {"accuracy": 0.84, "worst_class_recall": 0.5, "size_bytes": 100 * 1024, "latency_ms_p95": 0.3}
    shipped = {name: value for name, value in (values | measured).items() if value is not None}
    return {"shipped": {"onnx": shipped}, "artifact_sha256": {"onnx": SHA}}


def champion(low: float = -0.002, difference: float = 0.004, sha: str = "b" * 64) -> ChampionEvaluation:
    return ChampionEvaluation(
        version=3,
        artifact_sha256=sha,
        test_changed=False,
        accuracy=0.836,
        challenger_accuracy=0.84,
        difference=difference,
        low=low,
        high=0.02,
        p_value=0.3,
        n=5000,
    )


GATES = {"accuracy": {"min": 0.8}, "size_kb": {"max": 200.0}}

measured = st.fixed_dictionaries(
    {},
    optional={name: st.one_of(st.floats(0, 1000), st.just(math.nan), st.just(math.inf)) for name in FIGURES},
)
limits = st.dictionaries(
    st.sampled_from(["accuracy", "macro_f1", "worst_class_recall", "ece", "size_kb", "latency_ms_p95", "params"]),
    st.dictionaries(st.sampled_from(["min", "max"]), st.floats(0, 1000), min_size=1),
)
champions = st.none() | st.builds(
    champion, low=st.floats(-1, 1), difference=st.floats(-1, 1), sha=st.sampled_from([SHA, "b" * 64])
)
margins = st.floats(0, 0.2)


def test_a_first_model_passes_by_the_gates_alone_and_the_record_says_so():
    decision = decide(metrics(), GATES, None, margin=0.01)
    assert (decision.status, decision.promote, decision.first) == ("VALIDATED", True, True)
    assert [reason.sentence for reason in decision.reasons] == [
        "Accuracy 0.84 reaches the minimum of 0.8.",
        "Size 100 KB is within the maximum of 200 KB.",
        "No champion to compare with: this is the first model, judged by the gates alone.",
    ]


def test_a_missed_gate_rejects_with_its_numbers():
    decision = decide(metrics(accuracy=0.79996), GATES, None, margin=0.01)
    missed = decision.reasons[0]
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert (missed.gate, missed.side, missed.limit, missed.value, missed.passed) == (
        "accuracy",
        "min",
        0.8,
        0.79996,
        False,
    )
    assert missed.sentence == "Accuracy 0.79996 is below the minimum of 0.8."


def test_without_a_gate_nothing_is_promoted():
    decision = decide(metrics(), {}, None, margin=0.01)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)
    assert "No gate is configured" in decision.reasons[0].sentence


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.9", True])
def test_a_figure_that_was_not_measured_leaves_the_status_unknown(value):
    decision = decide(metrics(accuracy=value), GATES, None, margin=0.01)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)
    assert decision.reasons[0].sentence == "Accuracy was not measured, and the minimum is 0.8."


def test_a_limit_that_is_no_number_leaves_the_status_unknown():
    assert decide(metrics(), {"accuracy": {"min": math.nan}}, None, margin=0.01).status == "UNKNOWN"


def test_an_unset_side_of_a_gate_is_no_gate():
    decision = decide(metrics(), {"accuracy": {"min": 0.8, "max": None}}, None, margin=0.01)
    assert [reason.gate for reason in decision.reasons] == ["accuracy", "champion"]


@pytest.mark.parametrize(("low", "promote"), [(-0.0099, True), (-0.01, False), (-0.02, False), (0.001, True)])
def test_the_bound_must_lie_above_the_margin(low, promote):
    decision = decide(metrics(), GATES, champion(low=low), margin=0.01)
    assert decision.promote is promote
    assert decision.status == ("VALIDATED" if promote else "REJECTED")
    assert "version 3" in decision.reasons[-1].sentence


def test_a_comparison_without_a_result_leaves_the_status_unknown():
    assert decide(metrics(), GATES, champion(low=math.nan), margin=0.01).status == "UNKNOWN"


def test_the_champion_itself_is_left_in_place():
    decision = decide(metrics(), GATES, champion(sha=SHA), margin=0.0)
    assert (decision.status, decision.promote) == ("VALIDATED", False)
    assert "nothing to do" in decision.reasons[-1].sentence


def test_a_changed_test_split_is_said():
    moved = ChampionEvaluation(**(vars(champion()) | {"test_changed": True}))
    assert "another test split" in decide(metrics(), GATES, moved, 0.01).reasons[-1].sentence


def test_a_version_that_was_rolled_back_is_not_promoted_again_by_itself():
    decision = decide(metrics(), GATES, champion(), 0.01, rolled_back="at noon by ada@lab")
    assert (decision.status, decision.promote) == ("REJECTED", False)
    assert "rolled back at noon by ada@lab" in decision.reasons[-1].sentence


def test_size_is_in_units_of_1024_bytes_and_what_was_not_measured_is_absent():
    assert figures(metrics(size_bytes=2048, accuracy=None)) == {
        "size_kb": 2.0,
        "worst_class_recall": 0.5,
        "latency_ms_p95": 0.3,
    }
    assert figures({}) == {}


@given(measured, limits, champions, margins, st.floats(0, 1000), st.data())
def test_a_stricter_gate_never_turns_a_refusal_into_a_promotion(values, gates, against, margin, more, data):
    before = decide(metrics(**values), gates, against, margin)
    if gates:
        name = data.draw(st.sampled_from(sorted(gates)))
        side = data.draw(st.sampled_from(sorted(gates[name])))
        stricter = gates[name][side] + more if side == "min" else gates[name][side] - more
        gates = gates | {name: gates[name] | {side: stricter}}
    after = decide(metrics(**values), gates, against, margin)
    assert before.promote or not after.promote


@given(measured, limits.filter(bool), champions, margins, st.data())
def test_no_gated_figure_that_is_not_finite_is_ever_promoted(values, gates, against, margin, data):
    name = data.draw(st.sampled_from(sorted(gates)))
    broken = values | {name.replace("size_kb", "size_bytes"): data.draw(st.sampled_from([None, math.nan, math.inf]))}
    decision = decide(metrics(**broken), gates, against, margin)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)


@given(measured, limits, champions, margins)
def test_promotion_needs_every_threshold_and_a_reason_is_given_for_each(values, gates, against, margin):
    decision = decide(metrics(**values), gates, against, margin)
    assert len(decision.reasons) == max(1, sum(len(bound) for bound in gates.values())) + 1
    if decision.promote:
        assert decision.status == "VALIDATED"
        assert gates
        assert all(reason.passed for reason in decision.reasons)
    if decision.status == "REJECTED":
        assert any(reason.passed is False for reason in decision.reasons)


@given(measured, limits, champions, margins, st.randoms(use_true_random=False))
def test_the_order_of_the_gates_does_not_matter(values, gates, against, margin, shuffler):
    names = list(gates)
    shuffler.shuffle(names)
    one = decide(metrics(**values), gates, against, margin)
    other = decide(metrics(**values), {name: gates[name] for name in names}, against, margin)
    assert (one.status, one.promote, set(one.reasons)) == (other.status, other.promote, set(other.reasons))


@given(measured, limits, champions, margins, st.floats(0, 0.2))
def test_a_wider_margin_never_turns_a_promotion_into_a_refusal(values, gates, against, margin, more):
    if decide(metrics(**values), gates, against, margin).promote:
        assert decide(metrics(**values), gates, against, margin + more).promote


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_test_images_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    labels, ours, theirs = rng.integers(0, 3, (3, 100))
    order = rng.permutation(100)
    one = compare(labels, ours, theirs, 3, SHA, False, resamples=200, seed=0)
    other = compare(labels[order], ours[order], theirs[order], 3, SHA, False, resamples=200, seed=0)
    assert one == other


def test_the_comparison_holds_both_accuracies_on_the_same_images():
    labels = np.array([0, 1, 2, 0])
    found = compare(labels, np.array([0, 1, 2, 1]), np.array([0, 1, 0, 1]), 3, SHA, False, resamples=100, seed=0)
    assert (found.challenger_accuracy, found.accuracy, found.difference, found.n) == (0.75, 0.5, 0.25, 4)


def test_a_clearly_worse_student_is_hardly_ever_promoted():
    """At a true loss of the margin itself, the one-sided error is at most 2.5 %, as the interval's level says."""
    rng = np.random.default_rng(11)
    promoted = 0
    trials = 1000
    for trial in range(trials):
        draws = rng.choice(3, p=[0.06, 0.03, 0.91], size=1000)  # loses 6 %, wins 3 %: 3 points worse
        labels = np.zeros(1000, np.int64)
        ours, theirs = (draws == 0).astype(np.int64), (draws == 1).astype(np.int64)
        against = compare(labels, ours, theirs, 3, "b" * 64, False, resamples=500, seed=trial)
        promoted += decide(metrics(), GATES, against, margin=0.03).promote
    assert promoted / trials < 0.04
