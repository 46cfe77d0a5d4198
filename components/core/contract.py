"""The names that stages share: stages, splits, shipped files, figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from reflux.components.core.errors import UserError
from reflux.components.core.registry import Registry


@dataclass(frozen=True)
class StageSpec:
    """A stage of the pipeline.

    Attributes:
        role: the model that it trains: teacher, student or control.
        trains: it wants a GPU, so that ``run.placement: two-pools`` runs it on the pool ``gpu``.
        distributed: it can run as several processes, with ``run.launcher: torchrun``.
        packages: those whose release is part of what its result is known by; see
            :mod:`reflux.components.core.runtime.installed`.
        ships: it makes or measures the files that ship, so that their runtimes are such packages, too.
    """

    role: str | None = None
    trains: bool = False
    distributed: bool = False
    packages: tuple[str, ...] = ()
    ships: bool = False


_TORCH = ("torch", "torchvision", "timm")
_SHIPPING = (*_TORCH, "onnxruntime")

# In the order data meets them; control needs no teacher and runs alongside distill.
STAGES = {
    "ingest": StageSpec(),
    "validate": StageSpec(),
    "pretrain": StageSpec(trains=True, packages=_TORCH),
    "finetune": StageSpec(role="teacher", trains=True, distributed=True, packages=_TORCH),
    "label": StageSpec(trains=True, distributed=True, packages=_TORCH),
    "distill": StageSpec(role="student", trains=True, distributed=True, packages=_TORCH),
    "control": StageSpec(role="control", trains=True, distributed=True, packages=_TORCH),
    "compress": StageSpec(packages=_SHIPPING, ships=True),
    "evaluate": StageSpec(distributed=True, packages=_SHIPPING, ships=True),
}
STEPS = (*STAGES, "register", "promote")  # the last two change the outside world, so that DVC knows nothing of them
TRAINING = tuple(name for name, stage in STAGES.items() if stage.trains)

UNTRAINED_CONTROL = (
    "No training image has a label, so that the control is the student before its training: the gain over it says "
    "nothing of soft labels. Compare with a run of distill.method=pseudo-labels."
)


def trained(metrics: Mapping[str, Any]) -> str:
    """By what the model that ships was trained, by the content of ``metrics.json``: ``distilled``, or ``labels``."""
    by: str = metrics.get("candidate", {}).get("trained", "distilled")
    return by


def not_distilled(metrics: Mapping[str, Any]) -> str:
    """Why the control ships instead of the distilled student, from ``metrics.json``; empty where it does not."""
    if trained(metrics) != "labels":
        return ""
    distilled, gain = metrics["distilled"], metrics["distilled"]["gain"]
    low, high = (100 * bound for bound in gain["ci95"])
    return (
        f"The control ships, not the distilled student: {metrics['candidate']['why']}. On the {metrics['test']['n']:,} "
        f"test images the student has {100 * distilled['accuracy']:.2f} %, {100 * gain['accuracy']:+.2f} points "
        f"against the control (95% interval {low:+.2f} to {high:+.2f})."
    )


LABELED_SPLITS = ("train", "val", "test")
SPLITS = (*LABELED_SPLITS, "unlabeled")

SLICE = "slice:"  # what the manifest puts before the names of the columns that ingest.slices or pretrain.tasks name
MISSING = "none"  # what it has there for an empty cell

DAMAGED = ("unreadable", "small", "labels")  # the kinds in quarantine.csv that count against ingest.max_quarantined


@dataclass(frozen=True)
class FormatSpec:
    """A format of files.

    Attributes:
        label: for people.
        runtime: the package that runs them.
        extra: of ``pyproject.toml``, if the base install has no such runtime.
    """

    label: str
    runtime: str
    extra: str | None = None

    def installed(self, who: str) -> str:
        """Return the installed release of the runtime, with its build.

        Args:
            who: needs it, as a sentence begins with it.

        Raises:
            UserError: it is not installed.
        """
        try:
            return version(self.runtime)
        except PackageNotFoundError:
            raise UserError(f"{who} needs the package {self.runtime}: `pip install {self.runtime}`.") from None


FORMATS = {
    ".pt2": FormatSpec("torch.export", "torch"),
    ".onnx": FormatSpec("ONNX", "onnxruntime"),
    ".pte": FormatSpec("ExecuTorch", "executorch", "executorch"),
    ".tflite": FormatSpec("LiteRT", "ai-edge-litert", "litert"),
    ".zip": FormatSpec("OpenVINO", "openvino", "openvino"),
}


@dataclass(frozen=True)
class FileSpec:
    """A file that ``compress`` can make of the student.

    Attributes:
        name: below ``artifacts/compress``.
        precision: of its weights and activations.
    """

    name: str
    precision: str = "fp32"

    @property
    def format(self) -> FormatSpec:
        return FORMATS[PurePath(self.name).suffix]

    @property
    def label(self) -> str:
        return f"{self.format.label}, {self.precision}"


# Those in ``edge/`` are made where they ship.
FILES = {
    "onnx": FileSpec("student.onnx"),
    "onnx_int8": FileSpec("student-int8.onnx", "int8"),
    "executorch": FileSpec("edge/student.pte"),
    "executorch_int8": FileSpec("edge/student-int8.pte", "int8"),
    "litert": FileSpec("edge/student.tflite"),
    "litert_int8": FileSpec("edge/student-int8.tflite", "int8"),
    "openvino": FileSpec("edge/student-openvino.zip"),
    "openvino_int8": FileSpec("edge/student-openvino-int8.zip", "int8"),
    "pt2": FileSpec("student.pt2"),  # no file that ships: it needs torch
}
EDGE = "edge"


def made(ships: str) -> dict[str, FileSpec]:
    """The files that ``compress`` makes where ``compress.ships`` is this, by their kinds."""
    always = {kind: file for kind, file in FILES.items() if file.format.extra is None}
    return always if ships == "auto" else always | {(kind := kind_of(ships)): FILES[kind]}


def kind_of(ships: str) -> str:
    """The kind of the file that ``compress.ships`` names."""
    return ships.replace("-", "_")


def ships(metrics: Mapping[str, Any]) -> str:
    """Which of the files ships, by the content of ``metrics.json``; before it said so, it was always the fp32 one."""
    kind: str = metrics.get("ships", {}).get("kind", "onnx")
    return kind


def shipped(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the file that ships, from ``metrics.json``; empty if it was not measured."""
    figures: dict[str, Any] = metrics.get("shipped", {}).get(ships(metrics), {})
    return figures


def alternatives(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The kinds of the measured files that could have shipped, by their names for people, from ``metrics.json``."""
    own = ships(metrics)
    others = [(kind, FILES[kind]) for kind in metrics.get("shipped", {}) if kind not in (own, "pt2")]
    same = FILES[own].format
    return {f"student, {file.precision if file.format == same else file.label}": kind for kind, file in others}


@dataclass(frozen=True)
class Figure:
    """A figure of a model.

    Attributes:
        label: for people, as a sentence begins with it.
        unit: likewise.
        share: it is a share of the test images, so that its uncertainty follows from their number.
    """

    label: str
    unit: str = ""
    share: bool = False


FIGURES = Registry(  # those that a gate can bound
    "figures",
    accuracy=Figure("Accuracy", share=True),
    macro_f1=Figure("Macro F1"),
    worst_class_recall=Figure("Worst class recall"),
    ece=Figure("Calibration error (ECE)"),
    size_kb=Figure("Size", "KB"),
    latency_ms_p95=Figure("Latency p95", "ms"),
    params=Figure("Parameters"),
    corrupted_accuracy=Figure("Accuracy under corruptions"),
    noise_accuracy=Figure("Accuracy under noise", share=True),
    blur_accuracy=Figure("Accuracy under blur", share=True),
    brightness_accuracy=Figure("Accuracy under brightness", share=True),
    jpeg_accuracy=Figure("Accuracy under JPEG", share=True),
    gain=Figure("Gain over the control"),
)
