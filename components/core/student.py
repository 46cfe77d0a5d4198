"""Trains the student: the same network, optimiser, schedule, views and budget with a teacher and without."""

from collections.abc import Callable

from torch import Tensor

from components.core import history, optimise, progress
from components.core.batches import TargetsOf, batches_of_views
from components.core.device import pick
from components.core.loop import fit
from components.core.models import PixelModel, parameter_count, pixel_model, save
from components.core.shards import Dataset, Shard
from components.core.stage import Stage, seed_everything


def train_student(
    stage: Stage,
    dataset: Dataset,
    images: Shard,
    val: Shard,
    views: int | None,
    targets_of: TargetsOf,
    loss: Callable[..., Tensor],
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Train a student from scratch and write its model and history.

    Args:
        stage: the running stage; its ``student`` params are the recipe.
        dataset: classes and normalisation.
        images: what the student sees.
        val: the split that chooses the weights.
        views: how many views of each image there are; None draws a new one at every visit.
        targets_of: the targets of a batch, from image indices [B] and their views [B].
        loss: takes logits [B, K] and those targets, returns a value an image [B].
        teacher: is asked for the first of the targets, from the pixels; None when ``targets_of`` gives all.
    """
    recipe, seed = stage.params.student, stage.params.seed
    run = stage.params.run
    device = pick(run.device, run.threads, run.deterministic)
    seed_everything(seed)
    model = pixel_model(recipe.model, dataset.classes, recipe.image_size, dataset.channels, dataset.mean, dataset.std)
    model.to(device)
    checkpoints = stage.checkpoints("student", *([stage.name] if stage.name != "control" else []))
    stage.journal.params({"student_parameters": parameter_count(model), "device": str(device)})
    augment = recipe.augment.model_dump()
    share = stage.world.share_of_batch(recipe.batch_size, "student.batch_size")
    batches = batches_of_views(images, views, targets_of, seed, recipe.batch_size, augment, device, teacher, share)
    groups = weight_decay_groups(model, recipe.weight_decay)
    optimizer = optimise.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    with progress.bar(stage.name, recipe.model, recipe.steps * recipe.batch_size, done=checkpoints.images) as bar:
        rows = fit(
            model,
            batches,
            loss,
            val,
            optimizer,
            optimise.schedule(optimizer, recipe.schedule, recipe.steps, recipe.warmup),
            steps=recipe.steps,
            eval_every=recipe.eval_every,
            ema_decay=recipe.ema_decay,
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            device=device,
            checkpoints=checkpoints,
            report=history.to_journal(stage.journal, checkpoints, stage.name),
            advance=bar.advance,
            world=stage.world,
            sync_batch_norm=recipe.sync_batch_norm,
            precision=recipe.precision,
            through_compiler=run.compile,
        )
    if stage.world.first:
        save(model, stage.out("model.safetensors"))
        history.write(stage.out("history.parquet"), {stage.name: rows})
    checkpoints.clear()


def weight_decay_groups(model: PixelModel, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that spare biases and normalisation from weight decay, as timm does."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
