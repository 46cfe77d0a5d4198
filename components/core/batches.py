"""The batches a training sees: which views, in which order, with which targets; fetched while the model computes."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import torch
from torch import Tensor

from components.core.loop import Batch
from components.core.mixing import Views
from components.core.shards import Shard, decoded
from components.core.views import batch

_AHEAD = 2

# A CPU that learns is busy: a thread that fetches ahead pays where fetching waits for a disk, for workers or beside a
# GPU. For images that lie in memory it costs more than it saves: resnet8_slim learns from 4,275 images/s with it and
# from 5,957 without (``store_ahead`` and ``store`` of ``make bench``, two threads).
_CACHED = 2**30

TargetsOf = Callable[..., tuple[Tensor, ...]]


def batches_of_views(
    images: Shard,
    views: int | None,
    targets_of: TargetsOf,
    seed: int,
    batch_size: int,
    augment: dict[str, Any],
    device: torch.device,
    teacher: Callable[[Tensor], Tensor] | None = None,
    share: slice = slice(None),
) -> Callable[[int], Iterator[Batch]]:
    """Endless batches of augmented views, from any step on.

    Args:
        images: every epoch visits each once, in an order of its own.
        views: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        seed: of order and views.
        batch_size: images a step.
        augment: what a view may draw; see :class:`components.core.mixing.Views`.
        device: where the pixels are made.
        teacher: is asked for the first of the targets, from the pixels; None when ``targets_of`` gives all.
        share: which images of each batch this process learns from; the targets are always made for the whole batch.
    """

    shown = Views(images, seed, augment)

    def fetch(step: int) -> Batch:
        indices, epochs = batch(seed, step, len(images), batch_size)
        view = epochs if views is None else epochs % views
        pixels = shown.pixels(indices[share], view[share], device)
        targets = tuple(target[share].to(device, non_blocking=True) for target in targets_of(indices, view))
        answer = (teacher(pixels),) if teacher else ()
        return Batch(pixels, answer + targets, batch_size)

    in_line = device.type == "cpu" and decoded(images.images) and math.prod(images.images.shape) <= _CACHED
    return lambda begin: map(fetch, count(begin)) if in_line else ahead(fetch, begin)


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
