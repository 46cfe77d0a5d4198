"""The one training loop: teacher, student and control all run through it."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
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


@dataclass(frozen=True)
class Setup:
    """How and where a network is trained; ``world`` are the processes that train together, each on its shard."""

    recipe: Recipe
    device: torch.device
    world: World = ALONE


@dataclass(frozen=True)
class Objective:
    """What training minimizes.

    Attributes:
        loss: takes the model's output in training, logits [N, K] as a rule, and the batch's targets; returns its parts
            by name, already weighted, each a value an image [N]. The mean of their sum over the batch is minimized.
        warmups: the share of the steps over which a part of the loss rises from 0 to its weight, by the part's name.
        frozen: the parameters that a step, counted from 0, leaves as they are; like a batch, a function of the step.
    """

    loss: Loss
    warmups: Mapping[str, float] = field(default_factory=dict)
    frozen: Callable[[int], Iterable[nn.Parameter]] | None = None


@dataclass(frozen=True)
class Session:
    """What a training run leaves and tells.

    Attributes:
        checkpoints: of this run; if there is one, the run resumes from it.
        report: called with each row of the history, including the rows from before a resumption.
        advance: called with each step's number of images, and with the validation accuracy when it is new.
    """

    checkpoints: Checkpoints
    report: Report
    advance: Callable[..., None]


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
    objective: Objective,
    val: Shard,
    setup: Setup,
    session: Session,
    train: Shard | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights that validation chooses (``TrainState.choose``).

    Args:
        model: the network to train, on the setup's device; in eval mode it returns logits.
        optimizer: of the model's parameters.
        batches: the batches from a step on; each is a pure function of the step, so that an interrupted run resumes
            as if it had not been interrupted. Each process gets its shard of them.
        objective: what is minimized.
        val: the split that chooses the weights; never the test split.
        setup: how and where.
        session: checkpoints and progress.
        train: the training split; if given, the accuracy on up to 500 of its labeled images (fewer if they are very
            large), without augmentation, is reported with each validation.

    Returns:
        The history, a row for each validation, as :class:`reflux.components.core.training.state.TrainState` has it.

    Raises:
        UserError: the loss is no longer finite (the message names the step and the latest checkpoint), or the network
            can't be compiled.
    """
    recipe, steps = setup.recipe, setup.recipe.steps
    run = _Run(model, optimizer, val, train, setup, session.checkpoints)
    for row in run.state.history:
        session.report(row)
    run.go_on()
    with (
        data_parallel(model, setup.world, recipe.sync_batch_norm) as module,
        compiled(module) if recipe.compile else nullcontext(module) as network,
    ):
        for batch in islice(batches(run.state.step), steps - run.state.step):
            run.seed_step()
            run.add(batch.of, _step(network, batch, optimizer, objective, setup, run.state.step))
            session.advance(batch.of)
            if run.validates:
                session.report(row := run.validate())
                session.advance(0, val_accuracy=round(row["val_accuracy"], 4))
                run.go_on()
            elif session.checkpoints.due():
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
        setup: Setup,
        checkpoints: Checkpoints,
    ) -> None:
        recipe, world = setup.recipe, setup.world
        world.broadcast_parameters(itertools.chain(model.parameters(), model.buffers()))
        self._seed = torch.initial_seed()  # before a checkpoint sets the one of its step
        self._model, self._optimizer, self._val, self._recipe = model, optimizer, val, recipe
        self._device, self._checkpoints, self._world = setup.device, checkpoints, world
        self._schedule = optim.schedule(optimizer, recipe.schedule, recipe.steps, recipe.warmup)
        self._ema = averaged(model, recipe.ema_decay) if recipe.ema_decay else None
        self._eval_model = self._ema.module if self._ema else model
        self._stateful = {"model": model, "optimizer": optimizer, "schedule": self._schedule}
        self._stateful |= {"ema": self._eval_model} if self._ema else {}
        self.state = resume(self._stateful, checkpoints, setup.device)
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
    optimizer: Optimizer,
    objective: Objective,
    setup: Setup,
    step: int,
) -> dict[str, Tensor]:
    """Take a step of the optimizer, counted from 0; returns the batch's loss and its parts, as far as they rose."""
    recipe, device, world = setup.recipe, setup.device, setup.world
    rise = {name: min(1.0, (step + 1) / (share * recipe.steps)) for name, share in objective.warmups.items()}
    optimizer.zero_grad(set_to_none=True)
    names: list[str] = []
    means = torch.zeros((), device=device)
    images = batch.of / world.size  # the gradients of several processes are averaged: their sum is the whole batch's
    micro_batches = list(batch.split(recipe.accumulate))
    for micro_batch in micro_batches:
        with gradient_sync(network, last=micro_batch is micro_batches[-1]):
            with autocast(device, training=True, precision=recipe.precision):
                output = network(micro_batch.pixels)
            parts = objective.loss(output, *micro_batch.targets)
            parts |= {name: factor * parts[name] for name, factor in rise.items()}
            mean = total(parts).sum() / images
            mean.backward()
        names = ["loss", *parts]
        means = means + torch.stack([mean.detach(), *(part.detach().sum() / images for part in parts.values())])
    means = world.sum(means) / world.size
    for parameter in objective.frozen(step) if objective.frozen else ():
        # The optimizer leaves alone what has no gradient. Data parallelism needs the gradient of every parameter until
        # here, so that requires_grad can't change from step to step.
        parameter.grad = None
    if recipe.clip_norm:
        clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.clip_norm)
    optimizer.step()
    return dict(zip(names, means.unbind(), strict=True))


def _gradient_norm(model: nn.Module) -> float:
    return get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()
