"""A few images with the shipped file's predictions, kept with it: wherever it is loaded, it must repeat them.

They are patterns from a seed, as they go wherever the version goes, and test images may be nobody else's to see.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reflux.components.core.artifacts import atomic
from reflux.components.core.data.shards import Pixels
from reflux.components.core.export.logits import Logits, tied
from reflux.components.stages.evaluate.metrics import Ints

IMAGES = 64
_PATTERNS = 512
_CELLS = (2, 3, 4, 6, 8, 12)
_PAINTED = (Image.Resampling.NEAREST, Image.Resampling.BICUBIC)


def patterns(channels: int, image_size: int) -> Pixels:
    """Images of random squares and blobs, of any contrast: uint8 [512, channels, image_size, image_size].

    Coarse ones get more different answers than noise, in which a network sees one class mostly.
    """
    rng = np.random.default_rng(0)
    made = np.empty((_PATTERNS, channels, image_size, image_size), np.uint8)
    for number, image in enumerate(made):
        cells, painted = _CELLS[number % len(_CELLS)], _PAINTED[number // len(_CELLS) % len(_PAINTED)]
        low, high = sorted(rng.integers(0, 256, 2))
        levels = rng.integers(low, high + 1, (channels, cells, cells), dtype=np.uint8)
        if rng.random() < 0.7:  # on a black ground, as things often are
            levels *= rng.integers(0, 2, (cells, cells), dtype=np.uint8)
        for channel, coarse in enumerate(levels):
            image[channel] = np.asarray(Image.fromarray(coarse).resize((image_size, image_size), painted))
    return made


def of_patterns(run: Callable[[Pixels], Logits], channels: int, image_size: int) -> tuple[Pixels, Logits]:
    """Patterns and what a file answers, as many of each class that it answers with as there are.

    Args:
        run: the file, from pixels [N, channels, image_size, image_size] to logits [N, K].
    """
    pixels = patterns(channels, image_size)
    logits = np.concatenate([run(pixels[begin : begin + IMAGES]) for begin in range(0, len(pixels), IMAGES)])
    # Not the surest: those tell a model that was trained on from this one as rarely as test images that all find easy.
    rows = choose(logits.argmax(axis=1), logits)
    return pixels[rows], logits[rows]


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
