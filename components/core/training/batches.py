"""The batches a training sees: which views, in which order, with which targets; fetched while the model computes."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.core.images.shards import Shard, decoded
from components.core.training.loop import Batch
from components.core.views.augment import batch
from components.core.views.mixing import Indices, Views

_AHEAD = 2

# A CPU that learns is busy: a thread that fetches ahead pays where fetching waits for a disk, for workers or beside a
# GPU. For images that lie in memory it costs: resnet8_slim learns from 6,624 images/s with it and from 12,020 without,
# and with a live teacher from 1,126 and 1,857 (``store_ahead``, ``store``, ``live_fp32_ahead`` and ``live_fp32`` of
# ``make bench``, two threads).
_CACHED = 2**30

# The views of a few steps are drawn in one go: the many small calls cost as much for 640 small images as for 128.
_AT_ONCE, _STEPS_AT_ONCE = 2**19, 8

TargetsOf = Callable[..., tuple[Tensor, ...]]


def batches_of_views(
    images: Shard,
    views: int | None,
    targets_of: TargetsOf,
    seed: int,
    batch_size: int,
    augment: dict[str, Any],
    device: torch.device,
    teacher: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    share: slice = slice(None),
) -> Callable[[int], Iterator[Batch]]:
    """Endless batches of augmented views, from any step on.

    Args:
        images: every epoch visits each once, in an order of its own.
        views: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        seed: of order and views.
        batch_size: images a step.
        augment: what a view may draw; see :class:`components.core.views.mixing.Views`.
        device: where the pixels are made.
        teacher: answers with the first targets, from the pixels; None when ``targets_of`` gives all.
        share: which images of each batch this process learns from; the targets are always made for the whole batch.
    """

    shown = Views(images, seed, augment)

    def drawn(step: int) -> tuple[Indices, Indices]:
        indices, epochs = batch(seed, step, len(images), batch_size)
        return indices, epochs if views is None else epochs % views

    def fetch(begin: int, steps: int) -> Iterator[Batch]:
        several = [drawn(step) for step in range(begin, begin + steps)]
        all_indices, all_views = (np.concatenate([pair[i][share] for pair in several]) for i in (0, 1))
        rendered = shown.pixels(all_indices, all_views, device)
        for pixels, (indices, view) in zip(rendered.chunk(steps), several, strict=True):
            targets = tuple(target[share].to(device, non_blocking=True) for target in targets_of(indices, view))
            answer = teacher(pixels) if teacher else ()
            yield Batch(pixels, answer + targets, batch_size)

    size = math.prod(images.images.shape)
    in_line = device.type == "cpu" and decoded(images.images) and size <= _CACHED
    steps = min(max(1, _AT_ONCE * len(images) // (size * batch_size)), _STEPS_AT_ONCE)

    def from_step(begin: int) -> Iterator[Batch]:
        if in_line:
            return chain.from_iterable(fetch(step, steps) for step in count(begin, steps))
        return ahead(lambda step: next(fetch(step, 1)), begin)

    return from_step


def ahead(fetch: Callable[[int], Batch], begin: int) -> Iterator[Batch]:
    """The batches of step ``begin`` and all that follow, each fetched in a thread while those before are learnt."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque(pool.submit(fetch, begin + i) for i in range(_AHEAD))
        step = begin + _AHEAD
        try:
            while True:
                batch_now = waiting.popleft().result()
                waiting.append(pool.submit(fetch, step))
                step += 1
                yield batch_now
        finally:
            for future in waiting:
                future.cancel()
