"""What a decision is made from: rules, the figures of a student that passes them, and those of a champion."""

from dataclasses import replace

from reflux.components.core.params.registry import Registry
from reflux.components.registry.policy.comparison import ChampionEvaluation
from reflux.components.registry.policy.decision import Policy

SHA, OTHER = "a" * 64, "b" * 64
GATES = {"accuracy": {"min": 0.8}, "size_kb": {"max": 200.0}}
RULE = Policy.of(Registry(model_name="shoes"))
BASE = replace(RULE, gates=GATES)


def metrics(slices=None, n=5000, **measured: float | None) -> dict:
    values = {"accuracy": 0.84, "worst_class_recall": 0.5, "size_bytes": 100 * 1024, "latency_ms_p95": 0.3}
    shipped = {name: value for name, value in (values | measured).items() if value is not None}
    return {
        "test": {"n": n},
        "shipped": {"onnx": shipped},
        "artifact_sha256": {"onnx": SHA},
        "slices": slices or {},
    }


def champion(**changes) -> ChampionEvaluation:
    """A champion that the challenger is better than."""
    values = {"version": 3, "artifact_sha256": OTHER, "test_changed": False, "n": 5000, "accuracy": 0.82}
    values |= {"challenger_accuracy": 0.84, "difference": 0.02, "low": 0.01, "high": 0.03, "p_value": 0.001}
    values |= {"size_bytes": 100 * 1024, "challenger_size_bytes": 100 * 1024}
    values |= {"latency_ms_p95": 0.3, "challenger_latency_ms_p95": 0.3, "faster": 0.98}
    return ChampionEvaluation(**(values | changes))
