"""The networks, and the one recipe that all of them are trained with."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.harness.images import SIZE
from benchmarks.harness.training import CPU
from reflux.components.core import student as pipeline
from reflux.components.core.data.shards import Shard
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.journal import NullJournal
from reflux.components.core.training import loop
from reflux.components.core.training.batches import TrainingViews
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.distill.losses.labels import share_of_labels

CLASSES, MEAN, STD = tuple("0123456789"), (0.2861,), (0.3528,)
AUGMENT: dict[str, Any] = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
BATCH = 128

Indices = npt.NDArray[np.int64]


def untrained(name: str, seed: int) -> PixelModel:
    """An untrained network, the same for every method at a seed."""
    torch.manual_seed(seed)
    return pixel_model(name, CLASSES, SIZE, 1, MEAN, STD)


def recipe_of(steps: int) -> loop.Recipe:
    """The recipe that all networks share."""
    return loop.Recipe(steps, max(1, steps // 4), BATCH, lr=0.01, weight_decay=0.05, precision="fp32")


def hard(logits: Tensor, labels: Tensor, *_: Tensor) -> dict[str, Tensor]:
    """The loss of the labels alone."""
    return loop.cross_entropy(logits, labels)


def views_of(
    images: Shard,
    views: int | None,
    seed: int,
    soft: Callable[[Indices, Indices], tuple[Tensor, ...]] = lambda *_: (),
    order: int | None = None,
) -> TrainingViews:
    """The views of images as the pipeline has them, with soft labels, if there are any, and labels as targets."""
    labels, rendered = torch.from_numpy(images.labels), Views(images, seed, AUGMENT)

    def targets_of(indices: Indices, numbers: Indices) -> tuple[Tensor, ...]:
        own = labels[indices]
        return *soft(indices, numbers), own.clamp(min=0), share_of_labels(own), torch.from_numpy(indices)

    return TrainingViews(rendered, views, targets_of, order=order)


def train(model: nn.Module, training: TrainingViews, objective: loop.Objective, val: Shard, steps: int) -> None:
    """Train a network as the pipeline trains a student, with the weights that validation chooses."""
    setup = loop.Setup(recipe_of(steps), CPU)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "methods", every_s=3600)
        pipeline.train(model, training, objective, val, setup, pipeline.Phase("methods", NullJournal(), checkpoints))
        checkpoints.clear()
