"""Makes and trains the student: the same network, optimiser, schedule, views and budget with a teacher and without."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from components.core.images.shards import Dataset, Shard
from components.core.models.pixel_model import (
    PixelModel,
    adapted,
    load,
    parameter_count,
    pixel_model,
    save,
    seed_everything,
)
from components.core.runtime import history, progress
from components.core.runtime.checkpoint import Checkpoints
from components.core.runtime.stage import Stage
from components.core.training import optim
from components.core.training.batches import TargetsOf, batches_of_views
from components.core.training.loop import Loss, fit


def new_student(stage: Stage, dataset: Dataset, device: torch.device) -> PixelModel:
    """The student before it has learnt anything of the dataset, from the weights of ``student.weights``.

    Raises:
        UserError: the network is unknown or can't take such images, or its weights are damaged.
    """
    recipe = stage.params.student
    seed_everything(stage.params.seed)
    if recipe.weights == "random":
        return fresh(stage, recipe.model, dataset, device)
    weights = stage.read("pretrain/student/model.safetensors")
    return adapted(load(weights), dataset.classes, recipe.image_size, dataset.channels).to(device)


def fresh(stage: Stage, name: str, dataset: Dataset, device: torch.device) -> PixelModel:
    """A network with random weights that sees what the student sees.

    Raises:
        UserError: the network is unknown or can't take images of this size.
    """
    size = stage.params.student.image_size
    return pixel_model(name, dataset.classes, size, dataset.channels, dataset.mean, dataset.std).to(device)


def train(
    stage: Stage,
    model: nn.Module,
    device: torch.device,
    checkpoints: Checkpoints,
    images: Shard,
    val: Shard,
    views: int | None,
    targets_of: TargetsOf,
    loss: Loss,
    teacher: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    name: str | None = None,
    begun: int = 0,
) -> list[dict[str, float]]:
    """Train a network in place, by the stage's ``student`` params; returns the history.

    Args:
        stage: the running stage.
        model: the student, or what holds it; in eval mode it answers with logits.
        device: where it is.
        checkpoints: of this training.
        images: what it sees.
        val: the split that chooses the weights.
        views: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        loss: takes what the model answers in training and those targets, returns its parts, each
            a value an image [B]; see :func:`components.core.training.loop.fit`.
        teacher: answers with the first of the targets, from the pixels; None when ``targets_of`` gives all.
        name: of a training that comes before the stage's own.
        begun: the steps of the stage's trainings before this one.
    """
    recipe, seed, run = stage.params.student, stage.params.seed, stage.params.run
    parameters = parameter_count(getattr(model, "student", model))
    stage.journal.params({f"{name or 'student'}_parameters": parameters, "device": str(device)})
    augment = recipe.augment.model_dump()
    share = stage.world.shard_of_batch(recipe.batch_size, "student.batch_size")
    batches = batches_of_views(images, views, targets_of, seed, recipe.batch_size, augment, device, teacher, share)
    groups = weight_decay_groups(model.parameters(), recipe.weight_decay)
    optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    total = recipe.steps * recipe.batch_size
    with progress.bar(stage.name, name or recipe.model, total, done=checkpoints.images) as bar:
        return fit(
            model,
            batches,
            loss,
            val,
            optimizer,
            optim.schedule(optimizer, recipe.schedule, recipe.steps, recipe.warmup),
            steps=recipe.steps,
            eval_every=recipe.eval_every,
            ema_decay=recipe.ema_decay,
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            device=device,
            checkpoints=checkpoints,
            report=history.to_journal(stage.journal, checkpoints, name or stage.name, begun),
            advance=bar.advance,
            world=stage.world,
            sync_batch_norm=recipe.sync_batch_norm,
            precision=recipe.precision,
            compile=run.compile,
            seen=images,
        )


def keep_student(
    stage: Stage, student: PixelModel, phases: dict[str, list[dict[str, float]]], checkpoints: Checkpoints
) -> None:
    """Write the trained student and the history of its training; then its checkpoints are needed no more."""
    if stage.world.first:
        save(student, stage.out("model.safetensors"))
        history.write(stage.out("history.parquet"), phases)
    checkpoints.clear()


def weight_decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that spare biases and normalisation from weight decay, as timm does."""
    everything = list(parameters)
    matrices = [p for p in everything if p.ndim > 1]
    vectors = [p for p in everything if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
