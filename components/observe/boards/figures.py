"""The figures of a pipeline run in MLflow, fewer than 100, under the names that the boards use."""

from collections.abc import Mapping, Sequence
from typing import Any

from reflux.components.core.contract import DAMAGED, shipped

_FIGURES = ("accuracy", "macro_f1", "worst_class_recall", "ece", "corrupted_accuracy")
_RECALLS = 10  # classes, the weakest


def summary(
    metrics: Mapping[str, Any],
    gates: Mapping[str, Mapping[str, Any]],
    dataset: Mapping[str, Any],
    quarantine: Sequence[str],
    checks: Mapping[str, Any],
) -> dict[str, float]:
    """The figures of evaluation and of the data's checks, by name; one that was not measured is absent.

    Args:
        metrics: the content of ``metrics.json``; the student is the file that ships.
        gates: ``{figure: {"min": limit, "max": limit}}``; those of a device are left out, as its figures are.
        dataset: the content of ``dataset.json``.
        quarantine: the kind of each image that was left out.
        checks: the content of validation's ``result.json``.
    """
    student = shipped(metrics)
    models = {"student": student, "teacher": metrics.get("teacher", {}), "control": metrics.get("control", {})}
    figures = {f"test/{model}_{name}": own.get(name) for model, own in models.items() for name in _FIGURES}
    figures |= {f"student/{name}": student.get(name) for name in ("params", "latency_ms_p50", "latency_ms_p95")}
    int8 = metrics.get("shipped", {}).get("onnx_int8", {})
    figures |= {"student/size_kb": _kilobytes(student), "student/int8_size_kb": _kilobytes(int8)}
    figures["student/int8_accuracy"] = int8.get("accuracy")
    figures |= _gain(metrics.get("gain", {}), models)
    here = {gate: bound for gate, bound in gates.items() if not bound.get("device")}
    limits = ((gate, side, bound.get(side)) for gate, bound in here.items() for side in ("min", "max"))
    figures |= {f"limit/{gate}_{side}": limit for gate, side, limit in limits}
    classes = metrics.get("slices", {}).get("class", {})
    weakest = sorted(classes, key=lambda name: float(classes[name]["accuracy"]))[:_RECALLS]
    figures |= {f"recall/{_plain(name)}": classes[name]["accuracy"] for name in weakest}
    figures |= {f"data/{split}_images": count for split, count in dataset["counts"].items()}
    figures |= {"data/classes": len(dataset["classes"]), "data/class_shift": checks.get("class_shift")}
    for name, kinds in {"quarantined": DAMAGED, "repeats": ("repeat", "overlap")}.items():
        figures[f"data/{name}"] = sum(quarantine.count(kind) for kind in kinds)
    figures |= {"data/critical_failures": checks["critical_failures"], "data/warnings": checks["warnings"]}
    checked = [each for each in checks["expectations"] if each["success"] is not None]
    figures |= {f"data/failed/{each['name']}": each["unexpected"] for each in checked}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def cost(wall_s: float, training_s: float, cores: int) -> dict[str, float]:
    """The cost of a run: seconds from its first stage to its decision, seconds in training, and core hours."""
    return {"time/wall_s": wall_s, "time/training_s": training_s, "time/core_hours": wall_s * cores / 3600}


def _gain(gain: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    figures = {f"gain/{name}": gain.get(name) for name in ("accuracy", "p_value")}
    if "ci95" in gain:
        figures |= dict(zip(("gain/ci95_low", "gain/ci95_high"), gain["ci95"], strict=True))
    student, teacher = (models[name].get("accuracy") for name in ("student", "teacher"))
    if student is not None and teacher is not None:
        figures["gain/gap_to_teacher"] = teacher - student
    return figures


def _kilobytes(figures: Mapping[str, Any]) -> float | None:
    return figures["size_bytes"] / 1024 if "size_bytes" in figures else None


def _plain(name: str) -> str:
    """A class's name in characters that MLflow allows for a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
