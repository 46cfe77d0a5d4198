"""Batches of several domains hold all of them in turns, in every micro-batch."""

from collections.abc import Iterator

import pytest
import torch

from reflux.components.core.training.loop import Batch
from reflux.components.stages.finetune.adaptation.batches import Batches, side_by_side


def part(size: int, value: int) -> Batches:
    """Batches of one value, whose targets are the step and the row."""

    def from_step(begin: int) -> Iterator[Batch]:
        for step in range(begin, 10):
            pixels = torch.full((size, 1, 2, 2), value, dtype=torch.uint8)
            yield Batch(pixels, (torch.full((size,), step), torch.arange(size)), size)

    return from_step


@pytest.mark.parametrize("sizes", [(6, 6, 6), (8, 8), (6, 6, 12)])
def test_every_micro_batch_has_its_share_of_each_part(sizes: tuple[int, ...]):
    batch = next(side_by_side([part(size, value) for value, size in enumerate(sizes)])(3))
    assert batch.of == len(batch.pixels) == sum(sizes)
    for micro_batch in batch.split(2):
        counts = torch.bincount(micro_batch.pixels[:, 0, 0, 0].int(), minlength=len(sizes))
        assert counts.tolist() == [size // 2 for size in sizes]


def test_each_row_keeps_its_targets_from_any_step_on():
    batches = side_by_side([part(3, 0), part(3, 1)])
    for step, batch in enumerate(batches(4), 4):
        assert (batch.targets[0] == step).all()
        for value in (0, 1):
            assert batch.targets[1][batch.pixels[:, 0, 0, 0] == value].tolist() == [0, 1, 2]


def test_the_rows_of_a_small_part_are_in_the_middle_of_their_shares():
    batch = next(side_by_side([part(2, 0), part(6, 1)])(0))
    assert batch.pixels[:, 0, 0, 0].tolist() == [1, 0, 1, 1, 1, 0, 1, 1]
