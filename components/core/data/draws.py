"""Random draws that depend only on (seed, example's id, view), and the order in which epochs visit examples.

``label`` and ``distill`` therefore see the same views, whatever the order, batch size or number of processes; a stored
soft label belongs to the exact view it was made for (FKD, Shen and Xing 2022; TinyViT, Wu et al. 2022).
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Uint64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draws(seed: int, ids: Uint64s, views: npt.NDArray[np.int64], count: int, first: int = 0) -> npt.NDArray[np.float64]:
    """Uniform draws in [0, 1) from a counter-based generator.

    SplitMix64 (Steele, Lea and Flood 2014) is applied to the counters, so a draw needs no state and no order.

    Args:
        seed: the run's seed.
        ids: image ids, uint64 [N].
        views: the number of each image's view, [N].
        count: draws for each image.
        first: the number of draws of each image to skip.

    Returns:
        float64 [N, count], the same on every machine.
    """
    keys = _splitmix64(_splitmix64(np.full(1, seed, np.uint64)) ^ views.astype(np.uint64))
    rows = _splitmix64(ids ^ keys)
    counters = rows[:, None] + np.arange(first + 1, first + count + 1, dtype=np.uint64)[None] * _GOLDEN
    return (_splitmix64(counters) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _splitmix64(x: Uint64s) -> Uint64s:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=2)  # a batch is in one epoch or two
def permutation(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits ``size`` images."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)


def batch_indices(
    seed: int, step: int, size: int, batch_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The images of a step; batches continue across the ends of epochs.

    Returns:
        Indices [batch_size] into the images, and the epoch [batch_size] of each.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // size
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        rows = epochs == epoch
        indices[rows] = permutation(seed, int(epoch), size)[positions[rows] % size]
    return indices, epochs


def views_key(ids: Uint64s, seed: int, augment: dict[str, Any]) -> str:
    """A hash of all that decides the views' pixels: images, seed and augmentation."""
    text = json.dumps({"seed": seed, "augment": augment, "images": hashlib.sha256(ids.tobytes()).hexdigest()})
    return hashlib.sha256(text.encode()).hexdigest()
