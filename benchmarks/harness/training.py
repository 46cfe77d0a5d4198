"""The pipeline's loss and loop, for benchmarks that train outside a stage."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from reflux.components.core.data.shards import Shard
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.training.loop import Batch, Loss, Objective, Recipe, Session, Setup, fit
from reflux.components.stages.distill.criterion import Criterion, Term
from reflux.components.stages.distill.losses.logits import kd

CPU = torch.device("cpu")


def kd_criterion(temperature: float, label_weight: float, teacher_weight: float = 1.0) -> Criterion:
    """The criterion of ``distill.method: kd``."""
    return Criterion([Term("kd", 1.0, partial(kd, temperature=temperature))], label_weight, teacher_weight)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Callable[[int], Iterator[Batch]],
    loss: Loss,
    val: Shard,
    recipe: Recipe,
    device: torch.device = CPU,
    advance: Callable[..., None] = lambda *_, **__: None,
) -> None:
    """Train in place by :func:`reflux.components.core.training.loop.fit`; history and checkpoints are not kept."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "benchmark", every_s=60)
        session = Session(checkpoints, _no_report, advance)
        fit(model, optimizer, batches, Objective(loss), val, Setup(recipe, device), session)
        checkpoints.wait()


def _no_report(_: dict[str, Any]) -> None:
    pass
