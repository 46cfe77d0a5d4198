"""The student's training: the same network, optimizer, schedule, views and budget with a teacher and without."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reflux.components.core.data.shards import Dataset, Shard
from reflux.components.core.runtime import history, progress
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.journal import Journal
from reflux.components.core.runtime.world import World
from reflux.components.core.training import optim
from reflux.components.core.training.batches import TargetsOf, TrainingViews, batches_of_views
from reflux.components.core.training.loop import Objective, Session, Setup, fit
from reflux.components.core.training.parallel import shard_of_batch
from reflux.components.modalities.image.models.pixel_model import (
    PixelModel,
    adapted,
    load,
    parameter_count,
    pixel_model,
    save,
    seed_everything,
)
from reflux.components.modalities.image.views.mixing import Indices, Views, mixed_labels


def untrained(name: str, image_size: int, dataset: Dataset, device: torch.device) -> PixelModel:
    """A network with random weights for the images and classes of a dataset.

    Raises:
        UserError: the network is unknown or can't take images of this size.
    """
    return pixel_model(name, dataset.classes, image_size, dataset.channels, dataset.mean, dataset.std).to(device)


def new_student(
    name: str, weights: Path | None, image_size: int, dataset: Dataset, seed: int, device: torch.device
) -> PixelModel:
    """The student before its training, with the pretrained weights of a file, or else with random ones.

    Raises:
        UserError: the network is unknown or can't take such images, or its weights are damaged.
    """
    seed_everything(seed)
    if weights is None:
        return untrained(name, image_size, dataset, device)
    return adapted(load(weights), dataset.classes, image_size, dataset.channels).to(device)


def labels_of(views: Views, classes: int) -> TargetsOf:
    """The targets of training on labels alone, of views that may be mixed."""
    labels = torch.from_numpy(views.images.labels)

    def targets_of(indices: Indices, numbers: Indices) -> tuple[Tensor, ...]:
        return mixed_labels(labels, indices, views.mix(indices, numbers), classes)[:1]

    return targets_of


@dataclass(frozen=True)
class Phase:
    """One of the training runs of a stage.

    Attributes:
        stage: its name.
        journal, checkpoints: where the run is recorded.
        name: of a training run before the stage's own.
        begun: the steps of the stage's training runs before this one.
    """

    stage: str
    journal: Journal
    checkpoints: Checkpoints
    name: str | None = None
    begun: int = 0


def train(
    model: nn.Module, training: TrainingViews, objective: Objective, val: Shard, setup: Setup, phase: Phase
) -> list[dict[str, float]]:
    """Train a network in place, by :func:`reflux.components.core.training.loop.fit`; returns the history.

    ``model`` is the student, or a module that holds it as ``student``; in eval mode it returns logits.
    """
    recipe, journal, checkpoints = setup.recipe, phase.journal, phase.checkpoints
    student: Any = getattr(model, "student", model)
    journal.params({f"{phase.name or 'student'}_parameters": parameter_count(student), "device": str(setup.device)})
    shard = shard_of_batch(setup.world, recipe.batch_size, "student.batch_size")
    batches = batches_of_views(training, recipe.batch_size, setup.device, shard)
    groups = optim.weight_decay_groups(model, recipe.weight_decay)
    optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    images = recipe.steps * recipe.batch_size
    report = history.to_journal(journal, checkpoints, phase.name or phase.stage, phase.begun)
    with progress.bar(phase.stage, phase.name or student.spec.name, images, done=checkpoints.images) as bar:
        session = Session(checkpoints, report, bar.advance)
        return fit(model, optimizer, batches, objective, val, setup, session, training.views.images)


def save_trained(
    model: PixelModel,
    phases: dict[str, list[dict[str, float]]],
    folder: Path,
    checkpoints: Checkpoints,
    world: World,
) -> None:
    """Write a trained network and its history into the stage's folder, and remove the checkpoints."""
    if world.first:
        save(model, folder / "model.safetensors")
        history.write(folder / "history.parquet", phases)
    checkpoints.clear()
