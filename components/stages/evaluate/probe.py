"""A few test images with the shipped file's predictions, kept with it: wherever it is loaded, it must repeat them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.core.artifacts import atomic
from reflux.components.core.export.logits import Logits, tied
from reflux.components.core.images.shards import Pixels
from reflux.components.stages.evaluate.metrics import Ints

IMAGES = 64


def spread(labels: Ints, count: int) -> npt.NDArray[np.intp]:
    """At most ``count`` rows of ``labels`` [N], spread evenly over the classes, the first of each class first."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    place = np.empty(len(labels), np.intp)  # among its class
    place[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return np.argsort(place, kind="stable")[:count]


def choose(labels: Ints, logits: Logits) -> npt.NDArray[np.intp]:
    """Choose the rows of the probe's images, by their labels [N] and the shipped file's logits [N, K].

    Images whose best two logits are tied are left out: another batch size or machine may swap them.
    """
    sure = np.flatnonzero(~tied(logits))
    return sure[spread(labels[sure], IMAGES)]


def write(path: Path, pixels: Pixels, logits: Logits) -> None:
    """Write ``pixels`` uint8 [n, C, H, W], as the file takes them, and ``predicted`` int64 [n], of its logits."""
    with atomic(path) as temporary:
        np.savez_compressed(temporary, pixels=pixels, predicted=logits.argmax(axis=1).astype(np.int64))
