"""Batches of several domains, which learn side by side."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from reflux.components.core.training.loop import Batch

Batches = Callable[[int], Iterator[Batch]]


def side_by_side(parts: Sequence[Batches]) -> Batches:
    """Batches that hold a batch of each part, in turns: every micro-batch has its share of all of them."""

    def from_step(begin: int) -> Iterator[Batch]:
        for batches in zip(*(part(begin) for part in parts), strict=True):
            order = _in_turns([len(batch.pixels) for batch in batches], batches[0].pixels.device)
            targets = zip(*(batch.targets for batch in batches), strict=True)
            yield Batch(
                torch.cat([batch.pixels for batch in batches])[order],
                tuple(torch.cat(each)[order] for each in targets),
                sum(batch.of for batch in batches),
            )

    return from_step


def _in_turns(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The order [N] of the concatenated rows of parts in which each part is spread evenly over the whole."""
    places = torch.cat([(torch.arange(size) + 0.5) / size for size in sizes])
    return places.argsort(stable=True).to(device)
