"""The batches of a training run: which views, in which order, with which targets; fetched while the model computes."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
import torch
from torch import Tensor

from reflux.components.core.data.draws import batch_indices
from reflux.components.core.data.shards import decoded
from reflux.components.core.training.balance import BalancedOrder
from reflux.components.core.training.loop import Batch
from reflux.components.modalities.image.views.mixing import Indices, Views

_AHEAD = 2

# A CPU that trains is busy: a thread that fetches ahead pays where fetching waits for a disk or for workers, or next to
# a GPU. For images in memory it costs: resnet8_slim trains on 6,624 images/s with it and on 12,020 without, and with a
# live teacher on 1,126 and 1,857 (``store_ahead``, ``store``, ``live_fp32_ahead`` and ``live_fp32`` of ``make bench``,
# two threads).
_CACHED = 2**30

# The views of a few steps are rendered at once: the many small calls cost as much for 640 small images as for 128.
_AT_ONCE, _STEPS_AT_ONCE = 2**19, 8

TargetsOf = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class TrainingViews:
    """The views that a network learns from, in their order, with their targets.

    Attributes:
        views: of the images; every epoch has an order of its own.
        per_image: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        teacher: computes the first targets from the pixels; None when ``targets_of`` gives all.
        order: seed of the order in which epochs visit the images; None is that of the views.
        balanced: an order in which classes are equally frequent; None visits each image once in an epoch.
    """

    views: Views
    per_image: int | None
    targets_of: TargetsOf
    teacher: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    order: int | None = None
    balanced: BalancedOrder | None = None


def batches_of_views(
    training: TrainingViews, batch_size: int, device: torch.device, shard: slice = slice(None)
) -> Callable[[int], Iterator[Batch]]:
    """Endless batches of augmented views, from any step on.

    ``shard`` are the images of each batch that this process trains on; targets are always made for the whole batch.
    """
    views, teacher, balanced = training.views, training.teacher, training.balanced
    images, order = views.images, views.seed if training.order is None else training.order

    def at(step: int) -> tuple[Indices, Indices]:
        chosen = balanced(order, step, batch_size) if balanced else batch_indices(order, step, len(images), batch_size)
        indices, visits = chosen
        return indices, visits if training.per_image is None else visits % training.per_image

    def fetch(begin: int, steps: int) -> Iterator[Batch]:
        several = [at(step) for step in range(begin, begin + steps)]
        all_indices, all_numbers = (np.concatenate([pair[i][shard] for pair in several]) for i in (0, 1))
        rendered = views.pixels(all_indices, all_numbers, device)
        for pixels, (indices, numbers) in zip(rendered.chunk(steps), several, strict=True):
            whole = training.targets_of(indices, numbers)
            targets = tuple(target[shard].to(device, non_blocking=True) for target in whole)
            yield Batch(pixels, (teacher(pixels) if teacher else ()) + targets, batch_size)

    size = math.prod(images.images.shape)
    in_line = device.type == "cpu" and decoded(images.images) and size <= _CACHED
    steps = min(max(1, _AT_ONCE * len(images) // (size * batch_size)), _STEPS_AT_ONCE)

    def from_step(begin: int) -> Iterator[Batch]:
        if in_line:
            return chain.from_iterable(fetch(step, steps) for step in count(begin, steps))
        return ahead(lambda step: next(fetch(step, 1)), begin)

    return from_step


def ahead(fetch: Callable[[int], Batch], begin: int) -> Iterator[Batch]:
    """The batches of step ``begin`` and all that follow, each fetched in a thread while the model trains."""
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
