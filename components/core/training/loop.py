"""The one training loop: teacher, student and control all run through it."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from components.core.errors import UserError
from components.core.images.shards import Shard, some_labelled
from components.core.inference import validate
from components.core.models.precision import autocast
from components.core.runtime.checkpoint import Checkpoints, random_states, set_random_states
from components.core.runtime.device import usage
from components.core.runtime.world import ALONE, World
from components.core.training.parallel import compile_network, data_parallel, gradient_sync

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

_SEEN = 500


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        pixels: uint8 [N, C, H, W].
        targets: whatever the loss compares the logits with, each [N, …].
        of: the size of the whole batch, of which this may be a part.
    """

    pixels: Tensor
    targets: tuple[Tensor, ...]
    of: int

    def split(self, parts: int) -> Iterator["Batch"]:
        """The batch in equal parts, one after the other."""
        size = math.ceil(len(self.pixels) / parts)
        for begin in range(0, len(self.pixels), size):
            part = slice(begin, begin + size)
            yield Batch(self.pixels[part], tuple(target[part] for target in self.targets), self.of)


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: the steps done.
        images: the images seen.
        losses: of the steps since the last validation: ``loss``, and each of its parts by name.
        history: a row a validation.
        kept: the weights that validation data chose so far.
        best_accuracy: the best validation accuracy so far.
    """

    step: int = 0
    images: int = 0
    losses: dict[str, list[Tensor]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = 0.0


Report = Callable[[dict[str, float]], None]
Loss = Callable[..., dict[str, Tensor]]


def cross_entropy(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The loss of training on labels alone, which are classes [N] or probabilities [N, K]."""
    return {"ce": F.cross_entropy(logits, labels, reduction="none")}


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of a loss's parts."""
    return reduce(operator.add, parts.values())


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterator[Batch]],
    loss: Loss,
    val: Shard,
    optimizer: Optimizer,
    schedule: LRScheduler,
    steps: int,
    eval_every: int,
    ema_decay: float,
    accumulate: int,
    clip_norm: float,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Report,
    advance: Callable[..., None],
    world: World = ALONE,
    sync_batch_norm: bool = True,
    precision: str = "auto",
    compile: bool = False,
    seen: Shard | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights that validation data choose.

    These are the latest whose validation accuracy is within one standard error of the best (Breiman et al. 1984): on a
    few hundred images the plain best picks a lucky moment before the learning rate has come down.

    Args:
        model: the network to train, on ``device``; in eval mode it answers with logits.
        batches: the batches from a step on; what a step gets is a pure function of the step, so that a training that
            was killed goes on as if it had not been.
        loss: takes the model's output in training, logits [N, K] as a rule, and the batch's targets; returns its parts
            by name, already weighted, each a value an image [N]. The mean of their sum over the batch is minimized.
        val: the split that chooses the weights; never the test split.
        optimizer: of the model's parameters.
        schedule: of its learning rate.
        steps: the budget.
        eval_every: steps between validations.
        ema_decay: decay of the averaged weights that are validated and kept; 0 keeps the trained ones.
        accumulate: parts a batch is computed in, one after the other, for less memory.
        clip_norm: the largest norm of the gradient; 0 leaves it as it is.
        device: where to train.
        checkpoints: of this training; where one is found, training goes on from it.
        report: is called with each row of the history, those before a resumption included.
        advance: is called with each step's number of images, and the validation accuracy when it is new.
        world: the processes that train together; ``batches`` gives each of them its share.
        sync_batch_norm: BatchNorm takes its statistics over the images of all processes.
        precision: fp32, bf16 or auto; see :func:`components.core.models.precision.autocast`.
        compile: compile the network; see :func:`components.core.training.parallel.compile_network`.
        seen: what is trained on. Beside each validation the accuracy on up to 500 of its labelled images is told, as
            they are and by the same weights; none is told without.

    Returns:
        The history, a row a validation: step, images, lr, train_loss, the parts of it (train_ce, train_kd, …),
        val_loss, val_accuracy, train_accuracy (with ``seen``), images_per_s, grad_norm (of the last step, after
        clipping), memory_mb and, on some GPUs, gpu_percent.

    Raises:
        UserError: the loss is no longer finite; the message names the step and the checkpoint that was kept.
    """
    world.broadcast_parameters(itertools.chain(model.parameters(), model.buffers()))
    seed = torch.initial_seed()
    ema = averaged(model, ema_decay) if ema_decay else None
    judged = ema.module if ema else model
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule} | ({"ema": judged} if ema else {})
    done = _resume(parts, checkpoints, device)
    part_seen = some_labelled(seen, _SEEN) if seen else None
    for row in done.history:
        report(row)
    since, images_then = time.perf_counter(), done.images
    model.train()
    with data_parallel(model, world, sync_batch_norm) as module:
        network = compile_network(module) if compile else module
        for batch in islice(batches(done.step), steps - done.step):
            if world.size > 1:  # dropout draws something else in each process, and the same after a resumption
                torch.manual_seed(seed + done.step * world.size + world.rank)
            losses = _learn(network, batch, loss, optimizer, accumulate, clip_norm, device, precision, world)
            schedule.step()
            if ema:
                ema.update(model, step=done.step)
            done.step += 1
            done.images += batch.of
            for name, value in losses.items():
                done.losses.setdefault(name, []).append(value)
            advance(batch.of)
            if done.step % eval_every == 0 or done.step == steps:
                row = {"step": done.step, "images": done.images, "lr": optimizer.param_groups[-1]["lr"]}
                row |= {f"train_{name}": mean for name, mean in _finite_means(done, checkpoints.path).items()}
                seconds = time.perf_counter() - since
                world.broadcast_parameters(judged.buffers())
                row["val_loss"], row["val_accuracy"] = validate(judged, val, device, world)
                if part_seen:
                    row["train_accuracy"] = validate(judged, part_seen, device, world)[1]
                row["images_per_s"] = (done.images - images_then) / seconds
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                row |= {"grad_norm": get_total_norm(gradients).item(), **usage(device)}
                _choose(done, row, judged, len(val))
                done.losses = {}
                _save(done, parts, checkpoints)
                report(row)
                advance(0, val_accuracy=round(row["val_accuracy"], 4))
                since, images_then = time.perf_counter(), done.images
                model.train()
            elif checkpoints.due():
                _finite_means(done, checkpoints.path)
                _save(done, parts, checkpoints)
    model.load_state_dict(done.kept)
    model.eval()
    return done.history


def averaged(model: nn.Module, decay: float) -> "ModelEmaV3":
    """The exponential moving average of the model's weights, slower from step to step until it decays so."""
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=decay, use_warmup=True)


def _learn(
    network: nn.Module,
    batch: Batch,
    loss: Loss,
    optimizer: Optimizer,
    accumulate: int,
    clip_norm: float,
    device: torch.device,
    precision: str = "auto",
    world: World = ALONE,
) -> dict[str, Tensor]:
    """Take one step of the optimizer; returns the batch's loss and the parts of it."""
    optimizer.zero_grad(set_to_none=True)
    names: list[str] = []
    means = torch.zeros((), device=device)
    images = batch.of / world.size  # the gradients of several processes are averaged: their sum is the whole batch's
    micro_batches = list(batch.split(accumulate))
    for micro_batch in micro_batches:
        with gradient_sync(network, last=micro_batch is micro_batches[-1]):
            with autocast(device, training=True, precision=precision):
                output = network(micro_batch.pixels)
            parts = loss(output, *micro_batch.targets)
            mean = total(parts).sum() / images
            mean.backward()
        names = ["loss", *parts]
        means = means + torch.stack([mean.detach(), *(part.detach().sum() / images for part in parts.values())])
    means = world.sum(means) / world.size
    if clip_norm:
        clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return dict(zip(names, means.unbind(), strict=True))


def _choose(done: Progress, row: dict[str, float], judged: torch.nn.Module, count: int) -> None:
    done.history.append(row)
    done.best_accuracy = max(done.best_accuracy, row["val_accuracy"])
    if row["val_accuracy"] >= done.best_accuracy - _standard_error(done.best_accuracy, count):
        done.kept = {name: tensor.detach().clone() for name, tensor in judged.state_dict().items()}


def _save(done: Progress, parts: dict[str, Any], checkpoints: Checkpoints) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    checkpoints.save({**vars(done), "parts": states, "random": random_states()})


def _resume(parts: dict[str, Any], checkpoints: Checkpoints, device: torch.device) -> Progress:
    state = checkpoints.state
    if state is None:
        return Progress()
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    set_random_states(state["random"])
    done = Progress(**{name: state[name] for name in vars(Progress())})
    done.losses = {name: [value.to(device) for value in values] for name, values in done.losses.items()}
    return done


def _standard_error(accuracy: float, count: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / count)


def _finite_means(done: Progress, checkpoint: Path) -> dict[str, float]:
    """The means of the loss and its parts over the steps since the last validation.

    Raises:
        UserError: the loss was not finite.
    """
    values = torch.stack(done.losses["loss"])
    if bool(values.isfinite().all()):
        return {name: torch.stack(each).mean().item() for name, each in done.losses.items()}
    first = done.step + 1 - len(values) + int((~values.isfinite()).nonzero()[0])
    where = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
    raise UserError(f"The loss is not finite at step {first}: lower the learning rate (lr); {where}.")
