"""What a model's logits say about it, given the labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

from components.core.artifacts import finite

BINS = 15

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


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
    """Accuracy, macro F1, worst class recall, calibration error and negative log-likelihood.

    ``ece`` is the expected calibration error over 15 bins of equal width in (0, 1] (Guo et al. 2017, equation 5).
    ``macro_f1`` and ``worst_class_recall`` look only at classes that the labels have. A figure that is not finite is
    absent.

    Args:
        logits: [N, K].
        labels: [N].
    """
    scores, target = torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(labels)
    probabilities, classes = scores.softmax(dim=1), logits.shape[1]
    return finite(
        {
            "accuracy": float((logits.argmax(axis=1) == labels).mean()),
            "macro_f1": float(multiclass_f1_score(scores.argmax(dim=1), target, classes, average="macro")),
            "worst_class_recall": float(np.nanmin(recalls(confusion(logits, labels)))),
            "ece": float(multiclass_calibration_error(probabilities, target, classes, n_bins=BINS, norm="l1")),
            "nll": float(F.cross_entropy(scores, target)),
        }
    )


def confusion(logits: Floats, labels: Ints) -> Ints:
    """Images by true class (rows) and predicted class (columns), [K, K]."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def recalls(counts: Ints) -> Floats:
    """Each class's share of images that were recognised, [K]; NaN for a class without images."""
    totals = counts.sum(axis=1)
    return np.where(totals > 0, np.diag(counts) / np.maximum(totals, 1), np.nan)


def confidences(logits: Floats) -> Floats:
    """The predicted class's probability, [N]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1)


def reliability(logits: Floats, labels: Ints) -> Reliability:
    """The bins whose gaps, weighted by their counts, make up the expected calibration error."""
    confidence, right = confidences(logits), logits.argmax(axis=1) == labels
    # Bins are open below and closed above, as in Guo et al.
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    filled = count > 0
    mean = [
        np.bincount(index, weights=values, minlength=BINS)[filled] / count[filled] for values in (confidence, right)
    ]
    return Reliability(mean[0], mean[1], count[filled])


def worst_mistakes(logits: Floats, labels: Ints, count: int) -> npt.NDArray[np.intp]:
    """The rows of the most confident wrong predictions, the most confident first; at most ``count``."""
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    order = np.argsort(-confidences(logits)[wrong], kind="stable")
    return wrong[order][:count]
