"""The evaluation in pictures: one style, colors that the color-blind can tell apart (Okabe and Ito 2008)."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from reflux.components.core.data.shards import Pixels
from reflux.components.stages.evaluate.metrics import BINS, Floats, Ints, Reliability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"teacher": "#0072B2", "student": "#D55E00", "control": "#5F6B73"}
_MARKERS = {"teacher": "o", "student": "D", "control": "s"}
_OTHER_FILE = "#CC79A7", "^"  # of the student: it is measured, and does not ship
_STYLE: Any = {
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8A949B",
    "axes.labelcolor": "#2B3238",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E7EA",
    "grid.linewidth": 0.8,
    "xtick.color": "#4A545B",
    "ytick.color": "#4A545B",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a class may be named with dollar signs
}
_LETTERED_CLASSES = 20  # more, and the numbers in the cells no longer fit
_LISTED_CLASSES = 30
_FEW_IMAGES = 10

History = Mapping[str, Floats]


def learning_curves(histories: Mapping[str, History], path: Path) -> None:
    """Draw validation accuracy and loss over each model's training.

    A history has the columns ``images`` (counted over all phases of the training), ``train_loss``, ``val_loss`` and
    ``val_accuracy``.
    """
    with figure_at(path, 9, 3.8, columns=2) as (_, [left, right]):
        for name, history in histories.items():
            images = history["images"]
            line: dict[str, Any] = {"color": COLORS[name], "label": f"{name} ({_thousands(images[-1])} images)"}
            marker = _MARKERS[name] if len(images) <= 40 else None
            left.plot(images / images[-1], history["val_accuracy"], marker=marker, markersize=3.5, **line)
            right.plot(images / images[-1], history["val_loss"], **line)
            right.plot(images / images[-1], history["train_loss"], color=COLORS[name], linestyle=":", linewidth=1.2)
        left.set(title="Validation accuracy")
        left.legend(loc="lower right")
        right.set(title="Loss (solid: validation, dotted: training)", yscale="log")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        right.yaxis.set_minor_formatter(NullFormatter())
        for axes in (left, right):
            axes.set(xlabel="share of its training", xlim=(0, 1.02))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def confusion_matrix(counts: Ints, classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix [K, K] of true (rows) and predicted classes, as shares of the true class."""
    number = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3.2 + 0.42 * number, 14)
    with figure_at(path, side + 0.6, side) as (figure, [axes]):
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set(title="Confusion of the shipped student", xlabel="predicted", ylabel="true")
        if number <= _LISTED_CLASSES:
            axes.set_xticks(range(number), [clipped(name) for name in classes], rotation=45, ha="right")
            axes.set_yticks(range(number), [clipped(name) for name in classes])
        if number <= _LETTERED_CLASSES:
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = "white" if shares[row, column] > 0.55 else "#2B3238"
                size = 8 if counts[row, column] < 1000 else 7
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=size)
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, format=PercentFormatter(1, decimals=0))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)


def class_recall(recalls: Mapping[str, Floats], classes: Sequence[str], path: Path) -> None:
    """Draw each class's recall [K] of every model; with many classes, those that the student recognizes least.

    A class without a test image has NaN.
    """
    student = recalls["student"]
    order = np.argsort(student)  # NaN goes last
    drawn = order[: min(_LISTED_CLASSES, int(np.isfinite(student).sum()))]
    rows = np.arange(len(drawn))
    with figure_at(path, 7.5, 1.6 + 0.32 * len(drawn)) as (figure, [axes]):
        every = np.stack([values[drawn] for values in recalls.values()])
        axes.hlines(rows, every.min(axis=0), every.max(axis=0), color="#C5CCD1", linewidth=2, zorder=1)
        for name, values in recalls.items():
            front = 3 if name == "student" else 2
            axes.scatter(values[drawn], rows, 42, COLORS[name], marker=_MARKERS[name], label=name, zorder=front)
        axes.set_yticks(rows, [clipped(classes[index]) for index in drawn])
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(max(0, every.min() - 0.05), 1.01)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        few = len(drawn) < int(np.isfinite(student).sum())
        axes.set(title=f"Recall of the {len(drawn)} hardest classes" if few else "Recall by class", xlabel="recall")
        figure.legend(loc="outside lower center", ncols=len(recalls))


def reliability_diagram(
    bins: Mapping[str, Reliability], errors: Mapping[str, float], shares: Floats, path: Path
) -> None:
    """Draw accuracy against confidence, with the histogram of the shipped student's confidence below.

    Bins of fewer than 10 images are not drawn: their accuracy is chance.

    Args:
        bins: by model.
        errors: each model's expected calibration error.
        shares: of the shipped student's images by bin of confidence, [15].
        path: the PNG to write.
    """
    with figure_at(path, 5.2, 5.6, rows=2, heights=(4, 1)) as (_, [top, bottom]):
        for name, own in bins.items():
            label = f"{name} (ECE {errors[name]:.1%})"
            marker: dict[str, Any] = {"marker": _MARKERS[name], "markersize": 5}
            sure = own.count >= _FEW_IMAGES
            top.plot(own.confidence[sure], own.accuracy[sure], color=COLORS[name], label=label, **marker)
        top.plot([0, 1], [0, 1], color="#8A949B", linestyle="--", linewidth=1, label="perfectly calibrated")
        top.set(title="Reliability", ylabel="accuracy", xlim=(0, 1.01), ylim=(0, 1.02))
        top.legend(loc="upper left", fontsize=9)
        top.tick_params(labelbottom=False)
        edges = np.arange(BINS) / BINS
        bottom.bar(edges, shares, 1 / BINS, align="edge", color=COLORS["student"], edgecolor="white")
        bottom.set(xlabel="confidence", ylabel="student's\nimages", xlim=(0, 1.01))
        for axis in (top.yaxis, bottom.xaxis, bottom.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))


def size_accuracy(points: Mapping[str, tuple[int, float]], path: Path) -> None:
    """Draw file size against accuracy, from each model's bytes and accuracy."""
    with figure_at(path, 6.5, 3.8) as (_, [axes]):
        for name, (size, accuracy) in points.items():
            color, marker = (COLORS[name], _MARKERS[name]) if name in COLORS else _OTHER_FILE
            axes.scatter(size / 1024, accuracy, 90, color, marker=marker, zorder=3, label=name)
        sizes = [size / 1024 for size, _ in points.values()]
        accuracies = [accuracy for _, accuracy in points.values()]
        room = max(0.01, 0.25 * (max(accuracies) - min(accuracies)))
        axes.set(title="Size against accuracy", xlabel="file size in KB", ylabel="test accuracy", xscale="log")
        axes.set_xlim(min(sizes) / 2, max(sizes) * 2)
        axes.set_ylim(min(accuracies) - room, min(1.005, max(accuracies) + room))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def mistakes(images: Pixels, captions: Sequence[tuple[str, str]], title: str, path: Path) -> None:
    """Draw images uint8 [M, H, W, C] that were predicted wrong or differently, each under a caption of two lines."""
    columns = min(5, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    with figure_at(path, 1.9 * columns, 0.5 + 2.3 * rows, rows=rows, columns=columns) as (figure, cells):
        for axes in cells:
            axes.axis("off")
        for axes, image, (first, second) in zip(cells, images, captions, strict=False):
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(first, fontsize=9, loc="center", pad=14)
            axes.text(0.5, 1.03, second, transform=axes.transAxes, ha="center", fontsize=8, color=COLORS["student"])
        figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")


def strips(rows: Sequence[tuple[str, Pixels]], title: str, path: Path) -> None:
    """Draw rows of images uint8 [M, H, W, C], each with its label at the left; rows may differ in length."""
    number = max(len(images) for _, images in rows)
    with figure_at(path, 2.2 + 0.95 * number, 0.4 + len(rows), rows=len(rows), columns=number) as (figure, cells):
        for axes in cells:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
        for place, (label, images) in enumerate(rows):
            cells[place * number].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, image in zip(cells[place * number :], images, strict=False):
                axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")


@contextmanager
def figure_at(
    path: Path, width: float, height: float, rows: int = 1, columns: int = 1, heights: tuple[float, ...] | None = None
) -> "Iterator[tuple[Figure, list[Axes]]]":
    """Draw one figure in the style of all: its axes, row by row, which are written to ``path`` when the block ends.

    Args:
        path: the PNG.
        width, height: in inches.
        rows, columns: of axes.
        heights: of the rows, relative to each other.
    """
    with plt.rc_context(_STYLE):
        ratios = {"height_ratios": heights} if heights else {}
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), layout="constrained", squeeze=False, gridspec_kw=ratios
        )
        try:
            yield figure, list(axes.flat)
            # Without the software's version, so that the same figures are the same file.
            figure.savefig(path, metadata={"Software": None})
        finally:
            plt.close(figure)


def _thousands(value: float) -> str:
    return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.0f}"


def clipped(name: str, length: int = 18) -> str:
    """The name, cut where it would run into the next."""
    return name if len(name) <= length else name[: length - 1] + "…"
