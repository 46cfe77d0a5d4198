"""The one training loop: teacher, student and control all run through it."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from reflux.components.core.data.shards import Shard, some_labeled
from reflux.components.core.inference import validate
from reflux.components.core.precision import autocast
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.device import usage
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.core.training import optim
from reflux.components.core.training.balance import adjusted
from reflux.components.core.training.parallel import compiled, data_parallel, gradient_sync
from reflux.components.core.training.state import resume, save

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
        precision: see :func:`reflux.components.core.precision.autocast`.
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
    """Train ``model`` in place and leave it with the weights that validation chooses (``TrainState.choose``).

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
        frozen: the parameters that a step, counted from 0, leaves as they are; like a batch, a function of the step.

    Returns:
        The history, a row for each validation, as :class:`reflux.components.core.training.state.TrainState` has it.

    Raises:
        UserError: the loss is no longer finite (the message names the step and the latest checkpoint), or the network
            can't be compiled.
    """
    run = _Run(model, optimizer, val, train, recipe, device, checkpoints, world)
    for row in run.state.history:
        report(row)
    run.go_on()
    with (
        data_parallel(model, world, recipe.sync_batch_norm) as module,
        compiled(module) if recipe.compile else nullcontext(module) as network,
    ):
        for batch in islice(batches(run.state.step), recipe.steps - run.state.step):
            run.seed_step()
            rise = {name: _rise(run.state.step, recipe.steps, share) for name, share in (warmups or {}).items()}
            at_rest = frozen(run.state.step) if frozen else ()
            run.add(batch.of, _step(network, batch, loss, optimizer, recipe, device, world, rise, at_rest))
            advance(batch.of)
            if run.validates:
                report(row := run.validate())
                advance(0, val_accuracy=round(row["val_accuracy"], 4))
                run.go_on()
            elif checkpoints.due():
                run.save()
    return run.end()


class _Run:
    """A training run between its steps: what they change, its validations and its checkpoints.

    It resumes from its checkpoint, if there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        val: Shard,
        train: Shard | None,
        recipe: Recipe,
        device: torch.device,
        checkpoints: Checkpoints,
        world: World,
    ) -> None:
        world.broadcast_parameters(itertools.chain(model.parameters(), model.buffers()))
        self._seed = torch.initial_seed()  # before a checkpoint sets the one of its step
        self._model, self._optimizer, self._val, self._recipe = model, optimizer, val, recipe
        self._device, self._checkpoints, self._world = device, checkpoints, world
        self._schedule = optim.schedule(optimizer, recipe.schedule, recipe.steps, recipe.warmup)
        self._ema = averaged(model, recipe.ema_decay) if recipe.ema_decay else None
        self._eval_model = self._ema.module if self._ema else model
        self._stateful = {"model": model, "optimizer": optimizer, "schedule": self._schedule}
        self._stateful |= {"ema": self._eval_model} if self._ema else {}
        self.state = resume(self._stateful, checkpoints, device)
        self._train_sample = some_labeled(train, _TRAIN_SAMPLE) if train else None

    def go_on(self) -> None:
        """Begin or continue to train after a validation, whose time is not counted in images_per_s."""
        self._since, self._images_then = time.perf_counter(), self.state.images
        self._model.train()

    def seed_step(self) -> None:
        """Of several processes, let dropout draw something else in each, and the same after a resumption."""
        if self._world.size > 1:
            torch.manual_seed(self._seed + self.state.step * self._world.size + self._world.rank)

    def add(self, images: int, losses: Mapping[str, Tensor]) -> None:
        """Count a step that the optimizer has taken; the schedule and the averaged weights follow it."""
        self._schedule.step()
        if self._ema:
            self._ema.update(self._model, step=self.state.step)
        self.state.add(images, losses)

    @property
    def validates(self) -> bool:
        """True after a step that ends with a validation."""
        return self.state.step % self._recipe.eval_every == 0 or self.state.step == self._recipe.steps

    def validate(self) -> dict[str, float]:
        """Validate, choose the weights and save a checkpoint; returns the new row of the history.

        Raises:
            UserError: the loss was not finite.
        """
        state = self.state
        row = {"step": state.step, "images": state.images, "lr": self._optimizer.param_groups[-1]["lr"]}
        row |= state.means(self._checkpoints.path)
        images_per_s = (state.images - self._images_then) / (time.perf_counter() - self._since)
        self._world.broadcast_parameters(self._eval_model.buffers())
        row["val_loss"], row["val_accuracy"] = self._validated(self._val)
        if self._train_sample:
            row["train_accuracy"] = self._validated(self._train_sample)[1]
        row |= {"images_per_s": images_per_s, "grad_norm": _gradient_norm(self._model), **usage(self._device)}
        state.choose(row, self._eval_model, len(self._val))
        save(state, self._stateful, self._checkpoints)
        return row

    def _validated(self, shard: Shard) -> tuple[float, float]:
        return validate(self._eval_model, shard, self._device, self._world)

    def save(self) -> None:
        """Save a checkpoint between two validations.

        Raises:
            UserError: the loss was not finite.
        """
        self.state.means(self._checkpoints.path)  # refuses a loss that is not finite
        save(self.state, self._stateful, self._checkpoints)

    def end(self) -> list[dict[str, float]]:
        """Leave the model with the chosen weights; returns the history."""
        self._model.load_state_dict(self.state.kept)
        self._model.eval()
        return self.state.history


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


def _gradient_norm(model: nn.Module) -> float:
    return get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()


def _rise(step: int, steps: int, share: float) -> float:
    return min(1.0, (step + 1) / (share * steps))
