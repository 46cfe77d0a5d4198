"""The one training loop: teacher, student and control all run through it."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from reflux.components.core.errors import UserError
from reflux.components.core.images.shards import Shard, some_labeled
from reflux.components.core.inference import validate
from reflux.components.core.models.precision import autocast
from reflux.components.core.runtime.checkpoint import Checkpoints, random_states, set_random_states
from reflux.components.core.runtime.device import usage
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.core.training import optim
from reflux.components.core.training.balance import adjusted
from reflux.components.core.training.parallel import compile_network, data_parallel, gradient_sync

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

_TRAIN_SAMPLE = 500


@dataclass(frozen=True)
class Batch:
    """The input of one step.

    Attributes:
        pixels: uint8 [N, C, H, W].
        targets: what the loss compares the model's output with, each [N, …].
        of: the size of the whole batch, of which this may be a part.
    """

    pixels: Tensor
    targets: tuple[Tensor, ...]
    of: int

    def split(self, count: int) -> Iterator["Batch"]:
        """Divide the batch into equal micro-batches."""
        size = math.ceil(len(self.pixels) / count)
        for begin in range(0, len(self.pixels), size):
            rows = slice(begin, begin + size)
            yield Batch(self.pixels[rows], tuple(target[rows] for target in self.targets), self.of)


@dataclass(frozen=True)
class Recipe:
    """The plain values that decide how a network is trained, as a section of ``params.yaml`` has them.

    Attributes:
        lr: the peak learning rate.
        optimizer, schedule, warmup: see :mod:`reflux.components.core.training.optim`.
        weight_decay: of matrices; see :func:`reflux.components.core.training.optim.weight_decay_groups`.
        clip_norm: the largest norm of the gradient; 0 leaves it as it is.
        accumulate: micro-batches a batch is computed in, one after the other, for less memory.
        ema_decay: decay of the averaged weights that are validated and kept; 0 keeps the trained ones.
        precision: see :func:`reflux.components.core.models.precision.autocast`.
        sync_batch_norm, compile: see :mod:`reflux.components.core.training.parallel`.
    """

    steps: int
    eval_every: int
    batch_size: int
    lr: float
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    ema_decay: float = 0.0
    precision: str = "auto"
    sync_batch_norm: bool = True
    compile: bool = False

    @classmethod
    def of(cls, section: Mapping[str, Any], **more: Any) -> "Recipe":
        """The recipe in a section of the params; ``more`` has what the section lacks, or replaces."""
        values = {**section, **more}
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass
class TrainState:
    """The progress of a training run; its checkpoints hold it next to the states of model and optimizer.

    Attributes:
        losses: of the steps since the last validation: ``loss``, and each of its parts by name.
        history: a row for each validation.
        kept: the weights that validation has chosen so far.
    """

    step: int = 0
    images: int = 0
    losses: dict[str, list[Tensor]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = 0.0

    def add(self, images: int, losses: Mapping[str, Tensor]) -> None:
        """Count a step of so many images and keep its losses."""
        self.step += 1
        self.images += images
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)


Report = Callable[[dict[str, float]], None]
Loss = Callable[..., dict[str, Tensor]]


def cross_entropy(logits: Tensor, labels: Tensor, log_priors: Tensor | None = None) -> dict[str, Tensor]:
    """The loss of training on labels alone, which are classes [N] or probabilities [N, K].

    ``log_priors`` [K] are those of :func:`reflux.components.core.training.balance.log_priors_for`.
    """
    return {"ce": F.cross_entropy(adjusted(logits, log_priors), labels, reduction="none")}


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of a loss's parts."""
    return reduce(operator.add, parts.values())


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Callable[[int], Iterator[Batch]],
    loss: Loss,
    val: Shard,
    recipe: Recipe,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Report,
    advance: Callable[..., None],
    world: World = ALONE,
    train: Shard | None = None,
    warmups: Mapping[str, float] | None = None,
    frozen: Callable[[int], Iterable[nn.Parameter]] | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights that validation chooses.

    These are the latest whose validation accuracy is within one standard error of the best (Breiman et al. 1984): on a
    few hundred images the plain best picks a lucky moment before the learning rate has come down. In effect that keeps
    the last weights unless accuracy has fallen by more than a standard error: right where a schedule ends at a low
    learning rate, as all of these do; it does not notice a slow decline within that error.

    Args:
        model: the network to train, on ``device``; in eval mode it returns logits.
        optimizer: of the model's parameters.
        batches: the batches from a step on; each is a pure function of the step, so that an interrupted run resumes
            as if it had not been interrupted.
        loss: takes the model's output in training, logits [N, K] as a rule, and the batch's targets; returns its parts
            by name, already weighted, each a value an image [N]. The mean of their sum over the batch is minimized.
        val: the split that chooses the weights; never the test split.
        checkpoints: of this training run; if there is one, the run resumes from it.
        report: called with each row of the history, including the rows from before a resumption.
        advance: called with each step's number of images, and with the validation accuracy when it is new.
        world: the processes that train together; ``batches`` gives each of them its shard.
        train: the training split; if given, the accuracy on up to 500 of its labeled images (fewer if they are very
            large), without augmentation, is reported with each validation.
        warmups: the share of the steps over which a part of the loss rises from 0 to its weight, by the part's name.
        frozen: the parameters that a step, counted from 0, leaves as they are; a pure function of the step, so that
            a resumed run leaves the same ones.

    Returns:
        The history, a row for each validation: step, images, lr, train_loss, its parts (train_ce, train_kd, …),
        val_loss, val_accuracy, train_accuracy (with ``train``), images_per_s, grad_norm (of the last step, after
        clipping), memory_mb and, on some GPUs, gpu_percent.

    Raises:
        UserError: the loss is no longer finite; the message names the step and the latest checkpoint.
    """
    world.broadcast_parameters(itertools.chain(model.parameters(), model.buffers()))
    seed = torch.initial_seed()
    schedule = optim.schedule(optimizer, recipe.schedule, recipe.steps, recipe.warmup)
    ema = averaged(model, recipe.ema_decay) if recipe.ema_decay else None
    eval_model = ema.module if ema else model
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule} | ({"ema": eval_model} if ema else {})
    state = _resume(stateful, checkpoints, device)
    train_sample = some_labeled(train, _TRAIN_SAMPLE) if train else None
    for row in state.history:
        report(row)
    since, images_then = time.perf_counter(), state.images
    model.train()
    with data_parallel(model, world, recipe.sync_batch_norm) as module:
        network = compile_network(module) if recipe.compile else module
        for batch in islice(batches(state.step), recipe.steps - state.step):
            if world.size > 1:  # dropout draws something else in each process, and the same after a resumption
                torch.manual_seed(seed + state.step * world.size + world.rank)
            rise = {name: _rise(state.step, recipe.steps, share) for name, share in (warmups or {}).items()}
            at_rest = frozen(state.step) if frozen else ()
            losses = _step(network, batch, loss, optimizer, recipe, device, world, rise, at_rest)
            schedule.step()
            if ema:
                ema.update(model, step=state.step)
            state.add(batch.of, losses)
            advance(batch.of)
            if state.step % recipe.eval_every == 0 or state.step == recipe.steps:
                row = {"step": state.step, "images": state.images, "lr": optimizer.param_groups[-1]["lr"]}
                row |= _finite_means(state, checkpoints.path)
                images_per_s = (state.images - images_then) / (time.perf_counter() - since)
                row |= _validated(eval_model, val, train_sample, device, world)
                row |= {"images_per_s": images_per_s, "grad_norm": _gradient_norm(model), **usage(device)}
                _choose(state, row, eval_model, len(val))
                state.losses = {}
                _save(state, stateful, checkpoints)
                report(row)
                advance(0, val_accuracy=round(row["val_accuracy"], 4))
                since, images_then = time.perf_counter(), state.images
                model.train()
            elif checkpoints.due():
                _finite_means(state, checkpoints.path)
                _save(state, stateful, checkpoints)
    model.load_state_dict(state.kept)
    model.eval()
    return state.history


def averaged(model: nn.Module, decay: float) -> "ModelEmaV3":
    """The exponential moving average of the model's weights; its decay rises from step to step to ``decay``."""
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=decay, use_warmup=True)


def _step(
    network: nn.Module,
    batch: Batch,
    loss: Loss,
    optimizer: Optimizer,
    recipe: Recipe,
    device: torch.device,
    world: World = ALONE,
    rise: Mapping[str, float] | None = None,
    frozen: Iterable[nn.Parameter] = (),
) -> dict[str, Tensor]:
    """Take one step of the optimizer; returns the batch's loss and the parts of it, each times its ``rise``."""
    optimizer.zero_grad(set_to_none=True)
    names: list[str] = []
    means = torch.zeros((), device=device)
    images = batch.of / world.size  # the gradients of several processes are averaged: their sum is the whole batch's
    micro_batches = list(batch.split(recipe.accumulate))
    for micro_batch in micro_batches:
        with gradient_sync(network, last=micro_batch is micro_batches[-1]):
            with autocast(device, training=True, precision=recipe.precision):
                output = network(micro_batch.pixels)
            parts = loss(output, *micro_batch.targets)
            parts |= {name: factor * parts[name] for name, factor in (rise or {}).items()}
            mean = total(parts).sum() / images
            mean.backward()
        names = ["loss", *parts]
        means = means + torch.stack([mean.detach(), *(part.detach().sum() / images for part in parts.values())])
    means = world.sum(means) / world.size
    for parameter in frozen:
        # The optimizer leaves alone what has no gradient. Data parallelism needs the gradient of every parameter until
        # here, so that requires_grad can't change from step to step.
        parameter.grad = None
    if recipe.clip_norm:
        clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.clip_norm)
    optimizer.step()
    return dict(zip(names, means.unbind(), strict=True))


def _validated(
    eval_model: nn.Module, val: Shard, train_sample: Shard | None, device: torch.device, world: World
) -> dict[str, float]:
    """The columns of a validation, on the sample of the training split too if there is one."""
    world.broadcast_parameters(eval_model.buffers())
    loss, accuracy = validate(eval_model, val, device, world)
    row = {"val_loss": loss, "val_accuracy": accuracy}
    return row | {"train_accuracy": validate(eval_model, train_sample, device, world)[1]} if train_sample else row


def _gradient_norm(model: nn.Module) -> float:
    return get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()


def _rise(step: int, steps: int, share: float) -> float:
    return min(1.0, (step + 1) / (share * steps))


def _choose(state: TrainState, row: dict[str, float], eval_model: nn.Module, count: int) -> None:
    state.history.append(row)
    state.best_accuracy = max(state.best_accuracy, row["val_accuracy"])
    standard_error = math.sqrt(state.best_accuracy * (1 - state.best_accuracy) / count)
    if row["val_accuracy"] >= state.best_accuracy - standard_error:
        state.kept = {name: tensor.detach().clone() for name, tensor in eval_model.state_dict().items()}


def _save(state: TrainState, stateful: dict[str, Any], checkpoints: Checkpoints) -> None:
    states = {name: each.state_dict() for name, each in stateful.items()}
    checkpoints.save({**vars(state), "states": states, "random": random_states()})


def _resume(stateful: dict[str, Any], checkpoints: Checkpoints, device: torch.device) -> TrainState:
    checkpoint = checkpoints.state
    if checkpoint is None:
        return TrainState()
    for name, each in stateful.items():
        each.load_state_dict(checkpoint["states"][name])
    set_random_states(checkpoint["random"])
    state = TrainState(**{name: checkpoint[name] for name in vars(TrainState())})
    state.losses = {name: [value.to(device) for value in values] for name, values in state.losses.items()}
    return state


def _finite_means(state: TrainState, checkpoint: Path) -> dict[str, float]:
    """The means of the loss and its parts over the steps since the last validation, as columns of the history.

    Raises:
        UserError: the loss was not finite.
    """
    values = torch.stack(state.losses["loss"])
    if bool(values.isfinite().all()):
        return {f"train_{name}": torch.stack(each).mean().item() for name, each in state.losses.items()}
    first = state.step + 1 - len(values) + int((~values.isfinite()).nonzero()[0])
    where = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
    raise UserError(f"The loss is not finite at step {first}: lower the learning rate (lr); {where}.")
