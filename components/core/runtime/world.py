"""The processes that work on one stage together: this one's place among them, and what they tell each other."""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from components.core.errors import UserError


@dataclass(frozen=True)
class World:
    """One process among those that work together; everything here costs nothing where it is alone.

    Attributes:
        rank: this process's number; the first one, 0, keeps the journal and writes the files.
        size: how many processes there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def share_of_batch(self, batch_size: int, name: str) -> slice:
        """Which images of every batch are this process's.

        They are not neighbours: so the first part of each process's share, where a batch is learnt in parts, is
        together the first part of the batch.

        Args:
            batch_size: of the whole batch.
            name: the parameter that holds it.

        Raises:
            UserError: the batch can't be shared equally.
        """
        if batch_size % self.size:
            raise UserError(
                f"{name} = {batch_size} can't be shared equally by {self.size} processes: make it a multiple of "
                f"{self.size}, or change run.nproc_per_node or run.nnodes."
            )
        return slice(self.rank, None, self.size)

    def share_of(self, count: int) -> range:
        """Which of ``count`` images this process looks at; all processes' shares together are all images, in order."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, the same to the bit in each of them."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def joined(self, rows: Tensor, count: int) -> Tensor:
        """The rows that all processes made of their shares of ``count`` images, as one tensor [count, …]."""
        if self.size == 1:
            return rows
        shares = [World(rank, self.size).share_of(count) for rank in range(self.size)]
        most = max(len(share) for share in shares)
        padded = F.pad(rows.contiguous(), [0, 0] * (rows.ndim - 1) + [0, most - len(rows)])
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        return torch.cat([part[: len(share)] for part, share in zip(parts, shares, strict=True)])

    def told(self, value: Any) -> Any:
        """What the first process holds: nested dicts, lists, numbers, strings and tensors."""
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

    def equal(self, tensors: Iterator[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    @contextmanager
    def training(self, model: nn.Module, sync_batch_norm: bool) -> Iterator[nn.Module]:
        """The module to call in training, whose gradients are the mean over the processes.

        It trains ``model`` itself, which is left as it was built: its file holds the plain network.

        Args:
            model: the network, on its device.
            sync_batch_norm: BatchNorm takes its statistics over the images of all processes.

        Raises:
            UserError: BatchNorm is to be synchronised, and the network has one of a kind of its own.
        """
        if self.size == 1:
            yield model
            return
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        try:
            for norm in norms if sync_batch_norm else []:
                norm.forward = _synchronised(norm, self.size)  # type: ignore[assignment]
            with warnings.catch_warnings():
                # The new name is not known to torch 2.12 and older.
                warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
                # Statistics are the same everywhere already, or each process's own: nothing to send at every step.
                network = DistributedDataParallel(model, broadcast_buffers=False)
            yield network
        finally:
            for norm in norms:
                vars(norm).pop("forward", None)

    @staticmethod
    def gradients(network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Where a part of a batch is learnt: the gradients of all parts are sent once, with the last."""
        network = getattr(network, "_orig_mod", network)  # inside of what torch.compile returns
        if last or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()


ALONE = World()


@contextmanager
def join(device: str, lost_after_s: float) -> Iterator[World]:
    """Meet the processes that torch's elastic launcher started with this one.

    Args:
        device: ``run.device``.
        lost_after_s: a process that keeps the others waiting for longer is taken for lost.
    """
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=lost_after_s))
    yield World(dist.get_rank(), dist.get_world_size())
    # Only after success: where another process is lost, taking leave of it would wait for it.
    dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether this is how torch says that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients flow back to each of them."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _synchronised(norm: nn.Module, processes: int) -> Callable[[Tensor], Tensor]:
    """The forward of a BatchNorm layer whose statistics in training are over the images of all processes."""
    from timm.layers import BatchNormAct2d

    plain = norm.forward
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d):
        raise UserError(
            f"sync_batch_norm does not know this network's {type(norm).__name__}: set sync_batch_norm to false."
        )
    fused = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # shares norm's parameters and statistics

    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            return plain(x)
        y = fused.train()(x) if x.is_cuda else _batch_norm(norm, x, processes)
        # timm's kind has its activation inside.
        return norm.act(norm.drop(y)) if isinstance(norm, BatchNormAct2d) else y

    return forward


def _batch_norm(norm: Any, x: Tensor, processes: int) -> Tensor:
    """What torch's SyncBatchNorm does on a GPU; it refuses tensors on the CPU."""
    dims = [0, *range(2, x.ndim)]
    count = x.numel() // x.shape[1] * processes
    var, mean = torch.var_mean(x.float(), dims, correction=0)
    # In float64, because the square of a large mean would swallow a small variance.
    own = torch.stack([mean.double(), var.double() + mean.double().square()])
    mean, square = _Sum.apply(own / processes).unbind()  # type: ignore[no-untyped-call]
    var = square - mean.square()
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.to(norm.running_mean), share)
            norm.running_var.lerp_((var * count / (count - 1)).to(norm.running_var), share)
    scale = (var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.affine:
        shift = shift + norm.bias
    shape = [1, -1, *[1] * (x.ndim - 2)]
    return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))
