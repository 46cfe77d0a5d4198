"""Training on several processes, and through the compiler: data parallelism, BatchNorm over all processes."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reflux.components.core.errors import UserError
from reflux.components.core.runtime.world import World


def shard_of_batch(world: World, batch_size: int, name: str) -> slice:
    """The images of every batch that this process trains on.

    The ranks take turns, so that the first micro-batches of all processes are together the first micro-batch of the
    whole batch.

    Raises:
        UserError: the batch, whose size the param ``name`` sets, can't be divided equally.
    """
    if batch_size % world.size:
        raise UserError(
            f"{name} = {batch_size} can't be shared equally by {world.size} processes: make it a multiple of "
            f"{world.size}, or change run.nproc_per_node or run.nnodes."
        )
    return slice(world.rank, None, world.size)


@contextmanager
def data_parallel(model: nn.Module, world: World, sync_batch_norm: bool) -> Iterator[nn.Module]:
    """The module to call in training, whose gradients are averaged over the processes.

    It trains ``model`` itself, which is left as it was built: its file holds the plain network. With
    ``sync_batch_norm`` the statistics of BatchNorm are over the images of all processes.

    Raises:
        UserError: BatchNorm is to be synchronized, and the network has a kind of its own.
    """
    if world.size == 1:
        yield model
        return
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    try:
        for norm in norms if sync_batch_norm else []:
            norm.forward = _synchronized(norm, world.size)  # type: ignore[assignment]
        with warnings.catch_warnings():
            # The new name is not known to torch 2.12 and older.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            # The statistics are the same everywhere already, or each process's own: no need to send them every step.
            network = DistributedDataParallel(model, broadcast_buffers=False)
        yield network
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def gradient_sync(network: nn.Module, last: bool) -> AbstractContextManager[None]:
    """The context of a micro-batch's backward pass: gradients are exchanged once a step, after the last."""
    network = getattr(network, "_orig_mod", network)  # torch.compile wraps it
    if last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


@contextmanager
def compiled(network: nn.Module) -> Iterator[nn.Module]:
    """Compile the network with ``torch.compile``, on its first step.

    It is not the default: whether it pays depends on network and CPU, and compiling takes its time first. A bare step
    of resnet8_slim trains on 12,990 images/s compiled and on 12,430 as it is, resnet8x4 on 457 and 464
    (``bare_compiled`` and ``bare`` of ``make bench``, on an AVX-512 BF16 EPYC).

    Raises:
        UserError: it can't be compiled, for example without a C++ compiler. Training it as it is would pass for a
            compiled network that is slow.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    try:
        yield torch.compile(network)  # type: ignore[misc]
    except TorchDynamoException as error:
        cause = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The network can't be compiled ({cause}): install a C++ compiler, or set run.compile to false."
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over all processes, with gradients to each of them."""

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


def _synchronized(norm: nn.Module, processes: int) -> Callable[[Tensor], Tensor]:
    """The forward pass of a BatchNorm layer whose training statistics are over the images of all processes."""
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
        # timm's BatchNormAct2d contains its activation.
        return norm.act(norm.drop(y)) if isinstance(norm, BatchNormAct2d) else y

    return forward


def _batch_norm(norm: Any, x: Tensor, processes: int) -> Tensor:
    """SyncBatchNorm on the CPU, where torch has none."""
    dims = [0, *range(2, x.ndim)]
    count = x.numel() // x.shape[1] * processes
    var, mean = torch.var_mean(x.float(), dims, correction=0)
    # In float64, because the square of a large mean would swallow a small variance.
    own = torch.stack([mean.double(), var.double() + mean.double().square()])
    added = cast(Callable[[Tensor], Tensor], _Sum.apply)  # not every release of torch types it
    mean, square = added(own / processes).unbind()
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
