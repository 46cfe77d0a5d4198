"""From measurements to the facts that the model card tells."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.contract import STAGES
from components.core.export.onnx_file import Logits
from components.core.models.pixel_model import ModelSpec
from components.core.runtime import lineage
from components.core.runtime.journal import flatten
from components.core.significance import Interval
from components.evaluate import origin
from components.evaluate.card import kilobytes, milliseconds, percent, points
from components.evaluate.corruptions import levels_for
from components.evaluate.metrics import Ints, confusion, recalls
from components.evaluate.slices import CLASS

_FIGURES = (
    "accuracy",
    "macro_f1",
    "worst_class_recall",
    "ece",
    "nll",
    "params",
    "size_bytes",
    "latency_ms_p50",
    "latency_ms_p95",
)
_HARDEST = 3
_SLICES = 20
_SECTIONS = ("pretrain", "finetune", "student", "label", "distill")
# The student is the file that ships, measured as such.
_MODELS = {"teacher": "teacher", "student": "onnx", "control": "control"}
_USES = {
    "train": "training",
    "unlabeled": "distillation, through the teacher's soft labels",
    "val": "choosing checkpoints; comparing the files with the student",
    "test": "the figures of this card, and nothing else",
}


def results_facts(
    metrics: Mapping[str, Any],
    answers: Mapping[str, Logits],
    labels: Ints,
    right: Mapping[str, npt.NDArray[np.bool_]],
    teacher_gap: Interval,
) -> dict[str, Any]:
    """What the card tells about the test split.

    Args:
        metrics: the content of ``metrics.json``.
        answers: logits [N, K] by contender.
        labels: [N].
        right: whether each contender was right, [N].
        teacher_gap: the student's accuracy minus the teacher's.
    """
    intervals = {name: accuracy_interval(int(correct.sum()), len(correct)) for name, correct in right.items()}
    rows = per_class(metrics["classes"], labels, answers)
    return {
        "n": metrics["test"]["n"],
        "classes": metrics["classes"],
        "gain": metrics["gain"],
        "teacher": metrics["teacher"],
        "control": metrics["control"],
        "shipped": metrics["shipped"]["onnx"],
        "interval": intervals["onnx"],
        "teacher_gap": teacher_gap,
        "results": results(metrics, intervals),
        "per_class": rows,
        "slices": user_slices(metrics["slices"]),
        "hardest": sorted((row for row in rows if row["n"]), key=lambda row: float(row["student"]))[:_HARDEST],
        "processor": origin.processor(),
    }


def origin_facts(
    dataset: Mapping[str, Any], params: Mapping[str, Any], student: ModelSpec, teacher: ModelSpec
) -> dict[str, Any]:
    """What the card tells about where the student comes from.

    Args:
        dataset: the content of ``dataset.json``.
        params: all params, as nested dictionaries.
        student: the student's name and input.
        teacher: the teacher's name and input.
    """
    code = lineage.code()
    return {
        "title": params["registry"]["model_name"],
        "dataset": dataset,
        "data_md5": lineage.data_md5(),
        "uses": {split: use for split, use in _USES.items() if split in dataset["counts"]},
        "spec": student,
        "teacher_name": teacher.name,
        "resamples": params["evaluate"]["bootstrap"],
        "recipe": recipe(params),
        "code": code.missing or f"git {code.sha}",
        "runs": origin.runs(tuple(STAGES)[:-1]),
        "software": origin.software(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def results(metrics: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """A row a model for the table of results; a figure that was not measured is None."""
    shipped = metrics["shipped"]
    rows = {
        "teacher": ("teacher", metrics["teacher"]),
        "onnx": ("student: ONNX, fp32", shipped["onnx"]),
        "onnx_int8": ("student: ONNX, int8", shipped["onnx_int8"]),
        "pt2": ("student: torch.export", shipped["pt2"]),
        "control": ("control", metrics["control"]),
    }
    return [
        {"label": label, "m": {figure: found.get(figure) for figure in _FIGURES}, "interval": intervals[name]}
        for name, (label, found) in rows.items()
    ]


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of an accuracy (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, count, alpha=0.05, method="wilson")
    return float(low), float(high)


def corruptions(metrics: Mapping[str, Any], side: int) -> list[dict[str, Any]]:
    """A row a corruption: what it does to images of ``side`` pixels, and what student and control make of it."""
    levels = levels_for(side)
    said = {
        "as it is": ("the test images themselves", "accuracy"),
        "noise": (f"Gaussian noise, standard deviation {levels.noise:.0%} of the range", "noise_accuracy"),
        "blur": (f"Gaussian blur, standard deviation {levels.blur:g} pixels", "blur_accuracy"),
        "brightness": (f"brighter by {levels.brightness:.0%} of the range", "brightness_accuracy"),
        "jpeg": (f"JPEG of quality {levels.jpeg}", "jpeg_accuracy"),
        "mean": ("of the four corruptions", "corrupted_accuracy"),
    }
    models = {"student": metrics["shipped"]["onnx"], "control": metrics["control"]}
    return [
        {"name": name, "what": what, **{model: found[figure] for model, found in models.items()}}
        for name, (what, figure) in said.items()
    ]


def user_slices(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By column that ``ingest.slices`` names: its worst slices first as ``rows``, and how many ``more`` it has."""
    found = {}
    for column, parts in slices.items():
        if column == CLASS:
            continue
        worst = sorted(parts.items(), key=lambda part: (part[1]["accuracy"], part[0]))
        rows = [
            {"name": name, **part, "interval": accuracy_interval(round(part["accuracy"] * part["n"]), part["n"])}
            for name, part in worst[:_SLICES]
        ]
        found[column] = {"rows": rows, "more": len(worst) - len(rows)}
    return found


def per_class(classes: Sequence[str], labels: Ints, answers: Mapping[str, Logits]) -> list[dict[str, Any]]:
    """A row a class: its name, its test images, and each model's recall."""
    counts = {name: confusion(answers[kind], labels) for name, kind in _MODELS.items()}
    images = counts["student"].sum(axis=1)
    found = {name: recalls(table) for name, table in counts.items()}
    return [
        {"name": name, "n": int(images[index]), **{model: float(values[index]) for model, values in found.items()}}
        for index, name in enumerate(classes)
    ]


def recipe(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the models were trained: the params of each training stage in one line."""
    lines = [
        (section, ", ".join(f"{key} {value}" for key, value in flatten(params[section]).items()))
        for section in _SECTIONS
    ]
    return [*lines, ("seed", str(params["seed"]))]


def tiles(metrics: Mapping[str, Any], teacher_gap: Interval) -> list[dict[str, str]]:
    """The key figures on top of the page."""
    shipped, gain = metrics["shipped"]["onnx"], metrics["gain"]
    low, high = gain["ci95"]
    smaller = metrics["teacher"]["params"] / shipped["params"]
    found = [
        ("Test accuracy", percent(shipped["accuracy"]), f"{metrics['test']['n']:,} images"),
        ("Over the control", points(gain["accuracy"]), f"points, 95% from {points(low)} to {points(high)}"),
        ("Against the teacher", points(teacher_gap.difference), f"points, with {smaller:,.0f} times fewer parameters"),
        ("File", f"{kilobytes(shipped['size_bytes'])} KB", "ONNX, fp32"),
        ("Latency", milliseconds(shipped["latency_ms_p50"]), f"95% within {milliseconds(shipped['latency_ms_p95'])}"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in found]
