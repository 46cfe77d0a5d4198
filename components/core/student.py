"""Trains the student: the same network, optimiser, schedule, views and budget with a teacher and without."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from components.core import history, progress
from components.core.device import pick
from components.core.loop import Batch, fit
from components.core.models import PixelModel, parameter_count, pixel_model, save
from components.core.shards import Dataset, Shard
from components.core.stage import Stage, seed_everything
from components.core.views import batch, draws, render


def train_student(
    stage: Stage,
    dataset: Dataset,
    images: Shard,
    val: Shard,
    views: int | None,
    targets_of: Callable[..., tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
) -> None:
    """Train a student from scratch and write its model and history.

    Args:
        stage: the running stage; its ``student`` params are the recipe.
        dataset: classes and normalisation.
        images: what the student sees.
        val: the split that chooses the checkpoint.
        views: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        loss: takes logits [B, K] and those targets.
    """
    recipe, seed = stage.params.student, stage.params.seed
    device = pick(stage.params.run.device, stage.params.run.threads)
    seed_everything(seed)
    model = pixel_model(recipe.model, dataset.classes, recipe.image_size, dataset.channels, dataset.mean, dataset.std)
    stage.journal.params({"student_parameters": parameter_count(model), "device": str(device)})

    def batch_at(step: int) -> Batch:
        indices, epochs = batch(seed, step, len(images), recipe.batch_size)
        view = epochs if views is None else epochs % views
        uniform = draws(seed, images.ids[indices], view)
        pixels = render(images.images[indices], uniform, **recipe.augment.model_dump(), device=device)
        return Batch(pixels, tuple(t.to(device) for t in targets_of(indices, view)))

    with progress.bar(stage.name, recipe.model, recipe.steps * recipe.batch_size) as bar:
        rows = fit(
            model,
            batch_at,
            loss,
            val,
            groups=weight_decay_groups(model, recipe.weight_decay),
            optimizer=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            warmup=recipe.warmup,
            steps=recipe.steps,
            eval_every=recipe.eval_every,
            ema_decay=recipe.ema_decay,
            device=device,
            checkpoint=checkpoint_path(stage),
            report=history.to_journal(stage.journal),
            advance=bar.advance,
        )
    save(model, stage.out("model.safetensors"))
    history.write(stage.out("history.parquet"), {stage.name: rows})


def checkpoint_path(stage: Stage) -> Path:
    """Where a stage keeps its best weights while it trains: outside its outs, which DVC deletes before a run."""
    return Path(".reflux/checkpoints") / f"{stage.name}.safetensors"


def weight_decay_groups(model: PixelModel, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that spare biases and normalisation from weight decay, as timm does."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
