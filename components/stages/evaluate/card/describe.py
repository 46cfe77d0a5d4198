"""The facts of the model card, from what was measured."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from reflux.components.core.contract import FILES, SPLITS, STAGES, UNTRAINED_CONTROL, not_distilled, shipped, ships
from reflux.components.core.export.logits import Logits
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import lineage
from reflux.components.core.runtime.journal import flatten
from reflux.components.core.runtime.machine import processor
from reflux.components.core.significance import Interval
from reflux.components.modalities.image import preprocess
from reflux.components.modalities.image.models.pixel_model import ModelSpec
from reflux.components.modalities.image.stress import levels_for
from reflux.components.stages.evaluate.card import origin, teaching
from reflux.components.stages.evaluate.card.render import kilobytes, milliseconds, percent, points
from reflux.components.stages.evaluate.metrics import Ints, confusion, models, recalls
from reflux.components.stages.evaluate.slices import CLASS

_HARDEST = 3
_SLICES = 20
_SECTIONS = ("pretrain", "finetune", "student", "label", "distill")
_USES = {
    "train": "training of {trained}; the ranges of the int8 file",
    "val": "choosing {chosen}; comparing the files with the student",
    "test": "the figures of this card; the gates and the comparison with the champion",
}


def results_facts(
    metrics: Mapping[str, Any],
    logits: Mapping[str, Logits],
    labels: Ints,
    right: Mapping[str, npt.NDArray[np.bool_]],
    teacher_gap: Interval,
) -> dict[str, Any]:
    """The card's facts about the test split.

    Made from the content of ``metrics.json``, the labels [N], each contender's logits [N, K] and where it was right
    [N], and the student's accuracy minus the teacher's.
    """
    intervals = {name: accuracy_interval(int(correct.sum()), len(correct)) for name, correct in right.items()}
    by_model = {name: logits[kind] for name, kind in models(ships(metrics)).items()}
    rows = per_class(metrics["classes"], labels, by_model)
    return {
        "n": metrics["test"]["n"],
        "classes": metrics["classes"],
        "gain": metrics["gain"],
        "instead": not_distilled(metrics),
        "student": metrics["student"],
        "remedy": metrics.get("remedy"),
        "teacher": metrics["teacher"],
        "control": metrics["control"],
        "untrained": UNTRAINED_CONTROL if metrics.get("control_untrained") else "",
        "shipped": shipped(metrics),
        "file": FILES[ships(metrics)],
        "interval": intervals[ships(metrics)],
        "teacher_gap": teacher_gap,
        "results": results(metrics, intervals),
        "per_class": rows,
        "confusions": metrics["confusions"],
        "rounds": metrics.get("rounds", []),
        "source_domain": metrics.get("source_domain"),
        "slices": user_slices(metrics["slices"]),
        "hardest": sorted((row for row in rows if row["n"]), key=lambda row: float(row["student"]))[:_HARDEST],
        "processor": processor(),
    }


def origin_facts(dataset: Mapping[str, Any], params: Params, student: ModelSpec, teacher: ModelSpec) -> dict[str, Any]:
    """The card's facts about where the student comes from: ``dataset.json``, all params, both models."""
    code, taught = lineage.code(), teaching.facts(params)
    uses = _USES | {"unlabeled": taught["unlabeled_used"]}
    return taught | {
        "title": params.registry.model_name,
        "dataset": dataset,
        "data_md5": lineage.data_md5(),
        "uses": {split: uses[split].format(**taught) for split in SPLITS if split in dataset["counts"]},
        "spec": student,
        "teacher_name": teacher.name,
        "resamples": params.evaluate.bootstrap,
        "recipe": recipe(params.model_dump(by_alias=True)),
        "preprocess": preprocess,
        "code": code.missing or f"git {code.sha}",
        "runs": origin.runs(tuple(STAGES)[:-1]),
        "environments": origin.environments([name for name, stage in STAGES.items() if stage.role]),
        "software": origin.software(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def results(metrics: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """The table of results, one row per model."""
    rows = [("teacher", "teacher", metrics["teacher"])]
    files = metrics["shipped"]
    rows += [(kind, f"student: {file.label}", files[kind]) for kind, file in FILES.items() if kind in files]
    others = {"distilled": "distilled student", "control": "control"}
    rows += [(name, label, metrics[name]) for name, label in others.items() if name in metrics]
    return [{"label": label, "m": figures, "interval": intervals[name]} for name, label, figures in rows]


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of an accuracy (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, count, alpha=0.05, method="wilson")
    return float(low), float(high)


def corruptions(metrics: Mapping[str, Any], side: int) -> list[dict[str, Any]]:
    """One row per corruption: its effect on images of ``side`` pixels, and the accuracy of student and control."""
    levels = levels_for(side)
    figure_of = {
        "unchanged": ("the test images themselves", "accuracy"),
        "noise": (f"Gaussian noise, standard deviation {levels.noise:.0%} of the range", "noise_accuracy"),
        "blur": (f"Gaussian blur, standard deviation {levels.blur:g} pixels", "blur_accuracy"),
        "brightness": (f"brighter by {levels.brightness:.0%} of the range", "brightness_accuracy"),
        "jpeg": (f"JPEG of quality {levels.jpeg}", "jpeg_accuracy"),
        "mean": ("of the four corruptions", "corrupted_accuracy"),
    }
    own = {"student": shipped(metrics), "control": metrics["control"]}
    return [
        {"name": name, "what": what, **{model: figures[figure] for model, figures in own.items()}}
        for name, (what, figure) in figure_of.items()
    ]


def user_slices(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The worst slices of each column in ``ingest.slices`` as ``rows``, and how many ``more`` it has."""
    tables = {}
    for column, parts in slices.items():
        if column == CLASS:
            continue
        worst = sorted(parts.items(), key=lambda part: (part[1]["accuracy"], part[0]))
        rows = [
            {"name": name, **part, "interval": accuracy_interval(round(part["accuracy"] * part["n"]), part["n"])}
            for name, part in worst[:_SLICES]
        ]
        tables[column] = {"rows": rows, "more": len(worst) - len(rows)}
    return tables


def per_class(classes: Sequence[str], labels: Ints, logits: Mapping[str, Logits]) -> list[dict[str, Any]]:
    """One row per class: its name, its test images, and each model's recall, by the models' logits [N, K]."""
    counts = {name: confusion(own, labels) for name, own in logits.items()}
    images = counts["student"].sum(axis=1)
    by_model = {name: recalls(table) for name, table in counts.items()}
    return [
        {"name": name, "n": int(images[index]), **{model: float(values[index]) for model, values in by_model.items()}}
        for index, name in enumerate(classes)
    ]


def recipe(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The params of each stage that trains, in one line each."""
    flat = {section: flatten(params[section]).items() for section in _SECTIONS}
    lines = [(section, ", ".join(f"{key} {value}" for key, value in items)) for section, items in flat.items()]
    return [*lines, ("seed", str(params["seed"]))]


def tiles(metrics: Mapping[str, Any], teacher_gap: Interval) -> list[dict[str, str]]:
    """The key figures at the top of the page."""
    own, gain = shipped(metrics), metrics["gain"]
    low, high = gain["ci95"]
    smaller = metrics["teacher"]["params"] / own["params"]
    over = ("Over the control", points(gain["accuracy"]), f"points, 95% from {points(low)} to {points(high)}")
    if not_distilled(metrics):
        over = (
            "Over the distilled student",
            points(-metrics["distilled"]["gain"]["accuracy"]),
            "points; the control ships",
        )
    figures = [
        (
            "Test accuracy",
            percent(own["accuracy"]),
            f"{metrics['test']['n']:,} images; macro F1 {own['macro_f1']:.4f}, worst class "
            f"{percent(own['worst_class_recall'])}",
        ),
        over,
        ("Against the teacher", points(teacher_gap.difference), f"points, with {smaller:,.0f} times fewer parameters"),
        ("File", f"{kilobytes(own['size_bytes'])} KB", FILES[ships(metrics)].label),
        ("Latency", milliseconds(own["latency_ms_p50"]), f"95% within {milliseconds(own['latency_ms_p95'])}"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in figures]
