"""How long a training step takes by each method."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness.images import SIZE
from benchmarks.harness.training import CPU
from benchmarks.methods.students import CONTROL, STUDENTS, params_of
from benchmarks.methods.task import LABELED
from benchmarks.methods.training import BATCH, CLASSES, recipe_of, untrained
from reflux.components.core.params.distill import METHODS, Loss
from reflux.components.core.training import loop, optim
from reflux.components.modalities.image.layers import teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.distill.criterion import Criterion, terms


def one_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Criterion, teacher: PixelModel, pixels: Tensor
) -> None:
    """A training step, with a live teacher where layers are compared and its stored logits where none are."""
    stored = (torch.zeros(len(pixels), len(CLASSES)),)
    layers = criterion.teacher_layers
    outputs = teacher_outputs(teacher, layers, pixels, CPU) if layers else stored
    optimizer.zero_grad(set_to_none=True)
    labels = torch.arange(len(pixels)) % len(CLASSES)
    parts = criterion(model(pixels), *outputs, labels, torch.ones(len(pixels)), torch.arange(len(pixels)))
    loop.total(parts).mean().backward()
    optimizer.step()


def step_times(teacher: PixelModel, rounds: int = 5, steps: int = 6) -> dict[str, list[float]]:
    """The processor's milliseconds of a training step by method, one number a round."""
    pixels = torch.randint(0, 256, (BATCH, 1, SIZE, SIZE), dtype=torch.uint8)
    arms: dict[str, Callable[[], None]] = {}
    recipe = recipe_of(steps)
    for method in (CONTROL, *(name for name, kind in METHODS.items() if issubclass(kind, Loss))):
        student = untrained(STUDENTS[0], 0).train()
        losses = [] if method == CONTROL else terms(params_of(method).losses, student, teacher, LABELED)
        criterion = Criterion(losses, 1.0, 1.0)
        model = criterion.module(student).train()
        groups = optim.weight_decay_groups(model, recipe.weight_decay)
        optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
        arms[method] = partial(one_step, model, optimizer, criterion, teacher, pixels)
        arms[method]()
    times: dict[str, list[float]] = {method: [] for method in arms}
    for _ in range(rounds):
        for method, arm in arms.items():
            began = time.process_time()
            for _ in range(steps):
                arm()
            times[method].append(1000 * (time.process_time() - began) / steps)
    return times
