"""What must hold for any figures, gates and champion."""

import math
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from reflux.components.registry.policy.comparison import Best
from reflux.components.registry.policy.decision import Decision, Policy, decide
from reflux.components.registry.policy.gates import gated_figures, within
from tests.unit.registry.policy.figures import BASE, OTHER, SHA, champion, metrics

HIGHER = ("accuracy", "macro_f1", "worst_class_recall", "corrupted_accuracy", "jpeg_accuracy")
LOWER = ("ece", "latency_ms_p95", "params", "size_bytes")

numbers = st.floats(0, 1000)
broken = st.sampled_from([None, math.nan, math.inf, -math.inf])
measured = st.fixed_dictionaries({}, optional=dict.fromkeys(HIGHER + LOWER, numbers | broken))
bounds = st.dictionaries(st.sampled_from(["min", "max"]), numbers, min_size=1)
gate_names = [*HIGHER, "ece", "latency_ms_p95", "params", "size_kb"]
slice_values = st.dictionaries(
    st.sampled_from("abcdef"), st.fixed_dictionaries({"n": st.integers(0, 60), "accuracy": st.floats(0, 1) | broken})
)
slices = st.dictionaries(st.sampled_from(["class", "camera"]), slice_values)
filled_slices = st.dictionaries(st.sampled_from(["class", "camera"]), slice_values, min_size=1)
policies = st.builds(
    Policy,
    gates=st.dictionaries(st.sampled_from(gate_names), bounds),
    slices=st.dictionaries(
        st.sampled_from(["class", "camera"]), st.fixed_dictionaries({"accuracy": bounds}), max_size=2
    ),
    min_count=st.integers(1, 40),
    margin=st.floats(0, 0.2),
    alpha=st.floats(0, 1),
    smaller=st.floats(1, 2),
    faster=st.floats(1, 2),
    worse_than_control=st.sampled_from(["refuse", "allow"]),
)
# Half of all cases pass the gates that there are, or no property would ever see a promotion.
lenient = policies.map(
    lambda policy: replace(
        policy,
        gates={name: {"max": 1000.0} for name in policy.gates},
        slices={column: {"accuracy": {"min": 0.0}} for column in policy.slices},
    )
)
any_policy = policies | lenient
champions = st.none() | st.builds(
    champion,
    artifact_sha256=st.sampled_from([SHA, OTHER]),
    low=st.floats(-0.3, 0.3),
    difference=st.floats(-0.3, 0.3),
    p_value=st.floats(0, 1),
    challenger_size_bytes=st.integers(50 * 1024, 150 * 1024),
    faster=st.none() | st.floats(0.5, 2),
)
uses = st.none() | st.integers(0, 10_000)


@given(measured, slices, any_policy, champions, uses)
def test_promotion_means_validated_and_every_reason_passed(values, parts, policy, against, used):
    decision = decide(metrics(slices=parts, **values), policy, against, used)
    passed = [reason.passed for reason in decision.reasons]
    assert decision.status == ("UNKNOWN" if None in passed else "VALIDATED" if all(passed) else "REJECTED")
    same = against is not None and against.artifact_sha256 == SHA
    assert decision.promote == (decision.status == "VALIDATED" and not same)
    assert decision.first == (against is None)
    if decision.promote and against is not None:
        assert against.low > -policy.margin
    thresholds = [*policy.gates.values(), *(bound["accuracy"] for bound in policy.slices.values())]
    assert len(decision.reasons) == max(1, sum(map(len, thresholds))) + (2 if against and not same else 1)


@given(measured, slices, any_policy, champions)
def test_what_is_promoted_keeps_to_every_limit(values, parts, policy, against):
    if decide(metrics(slices=parts, **values), policy, against).promote:
        figures = gated_figures(metrics(**values))
        assert policy.gates or policy.slices
        assert all(within(figures[name], s, x) for name, bound in policy.gates.items() for s, x in bound.items())
        for column, bound in policy.slices.items():
            large = [part["accuracy"] for part in parts[column].values() if part["n"] >= policy.min_count]
            assert large
            assert all(within(value, s, x) for value in large for s, x in bound["accuracy"].items())


@given(measured, slices, any_policy.filter(lambda policy: policy.gates), champions, broken, st.data())
def test_a_gated_figure_that_is_missing_or_no_number_is_never_validated(values, parts, policy, against, bad, data):
    name = data.draw(st.sampled_from(sorted(policy.gates)))
    values = values | {name.replace("size_kb", "size_bytes"): bad}
    decision = decide(metrics(slices=parts, **values), policy, against)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)


@given(measured, slices, any_policy.filter(lambda policy: policy.slices), champions, broken, st.data())
def test_a_gated_slice_that_is_missing_or_no_number_is_never_validated(values, parts, policy, against, bad, data):
    column = data.draw(st.sampled_from(sorted(policy.slices)))
    part = {"n": data.draw(st.integers(policy.min_count, 100)), "accuracy": bad}
    missing = data.draw(st.booleans())
    parts = {c: p for c, p in parts.items() if c != column} if missing else parts
    parts = parts if missing else parts | {column: parts.get(column, {}) | {"z": part}}
    decision = decide(metrics(slices=parts, **values), policy, against)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)


@given(measured, slices, any_policy, st.sampled_from(["low", "difference"]), st.sampled_from([math.nan, math.inf]))
def test_a_comparison_that_is_no_number_is_never_validated(values, parts, policy, figure, bad):
    decision = decide(metrics(slices=parts, **values), policy, champion(**{figure: bad}))
    assert (decision.status, decision.promote) == ("UNKNOWN", False)


@given(measured, slices, any_policy, champions)
def test_no_gate_is_never_validated(values, parts, policy, against):
    decision = decide(metrics(slices=parts, **values), replace(policy, gates={}, slices={}), against)
    assert (decision.status, decision.promote) == ("UNKNOWN", False)


RANK = {"REJECTED": 0, "VALIDATED": 1}


def never_worse(before: Decision, after: Decision) -> bool:
    """A decision that could be taken does not turn from VALIDATED to REJECTED."""
    return not (before.status == "VALIDATED" and after.status == "REJECTED")


def natural(policy: Policy) -> Policy:
    """The gates on their natural side: a better figure can't miss a minimum of what is better low."""
    gates = {
        name: {("min" if name in HIGHER else "max"): limit}
        for name, bound in policy.gates.items()
        for limit in list(bound.values())[:1]
    }
    parts = {column: {"accuracy": {"min": min(b["accuracy"].values())}} for column, b in policy.slices.items()}
    return replace(policy, gates=gates, slices=parts)


@given(measured, slices, any_policy.map(natural), champions, st.sampled_from(HIGHER + LOWER), numbers)
def test_a_better_figure_never_turns_validated_into_rejected(values, parts, policy, against, name, more):
    before = decide(metrics(slices=parts, **values), policy, against)
    value = values.get(name, metrics()["shipped"]["onnx"].get(name))
    if value is not None and math.isfinite(value):
        better = values | {name: value + more if name in HIGHER else value - more}
        assert never_worse(before, decide(metrics(slices=parts, **better), policy, against))


@given(measured, filled_slices, any_policy.map(natural), champions, st.floats(0, 1), st.data())
def test_a_better_slice_never_turns_validated_into_rejected(values, parts, policy, against, more, data):
    before = decide(metrics(slices=parts, **values), policy, against)
    column = data.draw(st.sampled_from(sorted(parts)))
    raised = {
        name: part if part["accuracy"] is None else part | {"accuracy": part["accuracy"] + more}
        for name, part in parts[column].items()
    }
    after = decide(metrics(slices=parts | {column: raised}, **values), policy, against)
    assert never_worse(before, after)


BETTER = {
    "low": lambda c, x: replace(c, low=c.low + x),
    "difference": lambda c, x: replace(c, difference=c.difference + x),
    "p_value": lambda c, x: replace(c, p_value=c.p_value * (1 - x)),
    "size": lambda c, x: replace(c, challenger_size_bytes=round(c.challenger_size_bytes * (1 - x / 2))),
    "faster": lambda c, x: replace(c, faster=None if c.faster is None else c.faster + x),
}


@given(measured, slices, any_policy, champions.filter(bool), st.sampled_from(sorted(BETTER)), st.floats(0, 1))
def test_a_better_comparison_never_turns_validated_into_rejected(values, parts, policy, against, way, more):
    before = decide(metrics(slices=parts, **values), policy, against)
    after = decide(metrics(slices=parts, **values), policy, BETTER[way](against, more))
    assert never_worse(before, after)


@given(measured, slices, any_policy, champions, st.floats(0, 0.2), st.floats(0, 1))
def test_a_more_lenient_rule_never_turns_a_promotion_into_a_refusal(values, parts, policy, against, wider, share):
    lenient = replace(
        policy,
        margin=policy.margin + wider,
        alpha=policy.alpha + share * (1 - policy.alpha),
        smaller=policy.smaller * (1 - share / 2),
        faster=policy.faster * (1 - share / 2),
    )
    if decide(metrics(slices=parts, **values), policy, against).promote:
        assert decide(metrics(slices=parts, **values), lenient, against).promote


@given(filled_slices, st.floats(0, 1), st.floats(0, 0.99), st.floats(0.5, 0.999), st.integers(1, 10_000))
def test_a_confidence_never_turns_a_refusal_into_a_promotion(parts, right, limit, confidence, n):
    bound = {"min": limit}
    plain, sure = (
        replace(BASE, gates={"accuracy": each}, slices={column: {"accuracy": each} for column in parts})
        for each in (bound, {**bound, "confidence": confidence})
    )
    shown = metrics(slices=parts, n=n, accuracy=round(right * n) / n)
    assert decide(shown, plain, None).promote or not decide(shown, sure, None).promote


@given(measured, slices, any_policy, champions, numbers, st.data())
def test_a_stricter_gate_never_turns_a_refusal_into_a_promotion(values, parts, policy, against, more, data):
    before = decide(metrics(slices=parts, **values), policy, against)
    if policy.gates:
        name = data.draw(st.sampled_from(sorted(policy.gates)))
        side = data.draw(st.sampled_from(sorted(policy.gates[name])))
        limit = policy.gates[name][side] + (more if side == "min" else -more)
        policy = replace(policy, gates={**policy.gates, name: {**policy.gates[name], side: limit}})
    assert before.promote or not decide(metrics(slices=parts, **values), policy, against).promote


@given(measured, slices, any_policy, champions, st.randoms(use_true_random=False))
def test_the_order_of_gates_and_slices_does_not_matter(values, parts, policy, against, shuffler):
    def shuffled(mapping):
        keys = list(mapping)
        shuffler.shuffle(keys)
        return {key: mapping[key] for key in keys}

    one = decide(metrics(slices=parts, **values), policy, against)
    mixed = {column: shuffled(values) for column, values in shuffled(parts).items()}
    other_policy = replace(policy, gates=shuffled(policy.gates), slices=shuffled(policy.slices))
    other = decide(metrics(slices=mixed, **values), other_policy, against)
    assert (one.status, one.promote, set(one.reasons)) == (other.status, other.promote, set(other.reasons))


bests = st.none() | st.builds(Best, st.integers(1, 5), st.floats(0, 1))


@given(measured, slices, any_policy, champions, uses, bests)
def test_what_is_only_recorded_changes_no_verdict(values, parts, policy, against, used, best):
    bare, counted = (
        decide(metrics(slices=parts, **values), policy, against, u, best=b) for u, b in ((None, None), (used, best))
    )
    different = {f.name for f in fields(Decision) if getattr(bare, f.name) != getattr(counted, f.name)}
    assert different <= {"uses", "notes"}


@given(measured, slices, any_policy)
def test_an_identical_file_is_nothing_to_do(values, parts, policy):
    same = champion(artifact_sha256=SHA, low=0.0, difference=0.0, p_value=1.0, faster=None)
    decision = decide(metrics(slices=parts, **values), policy, same)
    assert not decision.promote
    assert decision.reasons[-1].passed
    assert "nothing to do" in decision.reasons[-1].sentence
