"""Rank, world size and collectives of a stage that runs as several processes."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class World:
    """The place of this process among those that run a stage together; collectives of a single process cost nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True for rank 0, which writes the files of all."""
        return self.rank == 0

    def shard(self, count: int) -> range:
        """This process's contiguous shard of ``count`` images; the shards of all ranks, in order, are all images."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes (all-reduce), the same to the bit in each."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all processes' shards of ``count`` images, as one tensor [count, …]."""
        if self.size == 1:
            return rows
        sizes = [len(World(rank, self.size).shard(count)) for rank in range(self.size)]
        padded = F.pad(rows.contiguous(), [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)])
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def broadcast(self, value: Any) -> Any:
        """The value that rank 0 holds: nested dicts, lists, numbers, strings and tensors."""
        if self.size == 1:
            return value
        file = io.BytesIO()
        if self.first:
            torch.save(value, file)
        length = torch.tensor(file.tell())
        dist.broadcast(length, 0)
        file.write(bytes(int(length) - file.tell()))
        dist.broadcast(torch.frombuffer(file.getbuffer(), dtype=torch.uint8), 0)
        file.seek(0)
        return value if self.first else torch.load(file, map_location="cpu", weights_only=True)

    def broadcast_parameters(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, in place, with the values of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


ALONE = World()


@contextmanager
def join(device: str, lost_after_s: float) -> Iterator[World]:
    """Join the process group of torch's elastic launcher, and leave it after success.

    A process counts as lost when a collective has waited for it for ``lost_after_s``.
    """
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=lost_after_s))
    yield World(dist.get_rank(), dist.get_world_size())
    # Only after success: leaving a group that lost a process waits for that process.
    dist.destroy_process_group()


def is_lost_process(error: RuntimeError) -> bool:
    """True if torch reports by this error that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
