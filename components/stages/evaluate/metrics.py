"""Figures of a model, from its logits and the labels: each is registered next to its function."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from reflux.components.core.contract import Figure
from reflux.components.core.errors import UserError
from reflux.components.core.params.registry import gate_on
from reflux.components.core.registry import Registry

BINS = 15

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Measure = Callable[[Floats, Ints], float]

MEASURES: Registry[Measure] = Registry("figures")


def figure(name: str, gate: Figure | None = None) -> Callable[[Measure], Measure]:
    """Register a figure that ``evaluate`` measures of each model on the test split.

    The function is called with the logits [N, K], finite and in double precision, and the labels [N].

    Args:
        name: in ``metrics.json``; in MLflow it is ``test/<model>_<name>``.
        gate: lets ``registry.gates`` bound the figure, and describes it; None where ``contract.FIGURES`` does, or for a
            figure without a gate.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Measure) -> Measure:
        if gate is not None:
            gate_on(name, gate)
        MEASURES.add(name, function)
        return function

    return register


def models(ships: str) -> dict[str, str]:
    """The contender that stands for each model: the student is the file that ships, measured as such."""
    return {"teacher": "teacher", "student": ships, "control": "control"}


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of the images in each bin of confidence; empty bins are left out.

    Attributes:
        confidence: mean of the predicted class's probability, [B].
        accuracy: share of right predictions, [B].
        count: images, [B].
    """

    confidence: Floats
    accuracy: Floats
    count: Ints


def measure(logits: Floats, labels: Ints) -> dict[str, float]:
    """All registered figures of a model; the logits [N, K] must be finite.

    Raises:
        UserError: a figure is not a finite number.
    """
    logits = logits.astype(np.float64)
    figures = {name: float(function(logits, labels)) for name, function in MEASURES.items()}
    for name, value in figures.items():
        if not math.isfinite(value):
            raise UserError(f"The figure {name} is {value} on {len(labels)} images: its function must return a number.")
    return figures


@figure("accuracy")
def accuracy(logits: Floats, labels: Ints) -> float:
    """Share of right predictions."""
    return float((logits.argmax(axis=1) == labels).mean())


@figure("macro_f1")
def macro_f1(logits: Floats, labels: Ints) -> float:
    """Mean over the classes of 2 TP / (2 TP + FP + FN); classes that are neither there nor predicted have none."""
    counts = confusion(logits, labels)
    hits, truths, calls = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    present = truths + calls > 0
    return float((2 * hits[present] / (truths + calls)[present]).mean())


@figure("worst_class_recall")
def worst_class_recall(logits: Floats, labels: Ints) -> float:
    """The lowest recall of the classes that have images."""
    return float(np.nanmin(recalls(confusion(logits, labels))))


@figure("ece")
def expected_calibration_error(logits: Floats, labels: Ints) -> float:
    """Equation 5 of Guo et al. 2017, over 15 bins of equal width in (0, 1]."""
    bins = reliability(logits, labels)
    return float((bins.count * np.abs(bins.accuracy - bins.confidence)).sum() / bins.count.sum())


@figure("nll")
def negative_log_likelihood(logits: Floats, labels: Ints) -> float:
    """Mean of the true class's negative log-probability, in nats."""
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def confusion(logits: Floats, labels: Ints) -> Ints:
    """Images by true class (rows) and predicted class (columns), [K, K]."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confused(counts: Ints, count: int) -> list[tuple[int, int]]:
    """The pairs of a true and another predicted class with the most images, at most ``count``, the most first."""
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [(int(true), int(predicted)) for true, predicted in pairs if mistakes[true, predicted]]


def recalls(counts: Ints) -> Floats:
    """Each class's share of images that were recognized, [K]; NaN for a class without images."""
    totals = counts.sum(axis=1)
    return np.where(totals > 0, np.diag(counts) / np.maximum(totals, 1), np.nan)


def confidences(logits: Floats) -> Floats:
    """The predicted class's probability, [N]."""
    return softmax(logits.astype(np.float64), axis=1).max(axis=1)


def reliability(logits: Floats, labels: Ints) -> Reliability:
    """The bins whose gaps, weighted by their counts, make up the expected calibration error."""
    confidence, right = confidences(logits), logits.argmax(axis=1) == labels
    # Bins are open below and closed above, as in Guo et al.
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    filled = count > 0
    sums = [np.bincount(index, weights=values, minlength=BINS) for values in (confidence, right)]
    mean, accuracy = (total[filled] / count[filled] for total in sums)
    return Reliability(mean, accuracy, count[filled])


def worst_mistakes(
    logits: Floats, labels: Ints, count: int, pair: tuple[int, int] | None = None
) -> npt.NDArray[np.intp]:
    """The rows of the most confident wrong predictions, the most confident first; at most ``count``.

    With a ``pair`` of classes, only of images of the first that are taken for the second.
    """
    predicted = logits.argmax(axis=1)
    mistaken = predicted != labels if pair is None else (labels == pair[0]) & (predicted == pair[1])
    wrong = np.flatnonzero(mistaken)
    order = np.argsort(-confidences(logits)[wrong], kind="stable")
    return wrong[order][:count]
