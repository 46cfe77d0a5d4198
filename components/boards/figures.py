"""The figures that a pipeline run carries in MLflow, under the names that the boards show; fewer than 100 of them."""

from collections.abc import Mapping, Sequence
from typing import Any

_FIGURES = ("accuracy", "macro_f1", "worst_class_recall", "ece", "corrupted_accuracy")
_RECALLS = 10  # classes, the weakest


def summary(
    metrics: Mapping[str, Any],
    gates: Mapping[str, Mapping[str, float]],
    dataset: Mapping[str, Any],
    quarantine: Sequence[str],
    checks: Mapping[str, Any],
) -> dict[str, float]:
    """What evaluation and the data's checks came to.

    Args:
        metrics: the content of ``metrics.json``; the student is the ONNX file that ships.
        gates: ``{figure: {"min": limit, "max": limit}}``.
        dataset: the content of ``dataset.json``.
        quarantine: why each image was left out, ``unreadable`` or ``repeat``.
        checks: the content of validation's ``result.json``.

    Returns:
        By name; a figure that was not measured is absent.
    """
    shipped = metrics.get("shipped", {})
    student = shipped.get("onnx", {})
    models = {"student": student, "teacher": metrics.get("teacher", {}), "control": metrics.get("control", {})}
    found = {f"test/{model}_{name}": figures.get(name) for model, figures in models.items() for name in _FIGURES}
    found |= {f"student/{name}": student.get(name) for name in ("params", "latency_ms_p50", "latency_ms_p95")}
    found |= {"student/size_kb": _kilobytes(student), "student/int8_size_kb": _kilobytes(shipped.get("onnx_int8", {}))}
    found["student/int8_accuracy"] = shipped.get("onnx_int8", {}).get("accuracy")
    found |= _gain(metrics.get("gain", {}), models)
    found |= {f"limit/{gate}_{side}": limit for gate, bound in gates.items() for side, limit in bound.items()}
    classes = metrics.get("slices", {}).get("class", {})
    weakest = sorted(classes, key=lambda name: float(classes[name]["accuracy"]))[:_RECALLS]
    found |= {f"recall/{_plain(name)}": classes[name]["accuracy"] for name in weakest}
    found |= {f"data/{split}_images": count for split, count in dataset["counts"].items()}
    found |= {"data/classes": len(dataset["classes"]), "data/class_shift": checks.get("class_shift")}
    found |= {"data/quarantined": quarantine.count("unreadable"), "data/repeats": quarantine.count("repeat")}
    found |= {"data/critical_failures": checks["critical_failures"], "data/warnings": checks["warnings"]}
    found |= {f"data/failed/{each['name']}": each["unexpected"] for each in checks["expectations"] if _judged(each)}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def cost(wall_s: float, training_s: float, cores: int) -> dict[str, float]:
    """What a run took: seconds from its first stage to its decision, seconds in training, and core hours."""
    return {"time/wall_s": wall_s, "time/training_s": training_s, "time/core_hours": wall_s * cores / 3600}


def _gain(gain: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = {f"gain/{name}": gain.get(name) for name in ("accuracy", "p_value")}
    if "ci95" in gain:
        found |= dict(zip(("gain/ci95_low", "gain/ci95_high"), gain["ci95"], strict=True))
    student, teacher = (models[name].get("accuracy") for name in ("student", "teacher"))
    if student is not None and teacher is not None:
        found["gain/gap_to_teacher"] = teacher - student
    return found


def _kilobytes(figures: Mapping[str, Any]) -> float | None:
    return figures["size_bytes"] / 1024 if "size_bytes" in figures else None


def _judged(expectation: Mapping[str, Any]) -> bool:
    return expectation["success"] is not None


def _plain(name: str) -> str:
    """A class's name in the characters that MLflow takes for a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
