"""``python -m components.finetune``: train the teacher."""

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from components.core.images.shards import Shard, open_shard, read_dataset
from components.core.models.pixel_model import PixelModel, adapted, load, save, seed_everything
from components.core.models.precision import computing
from components.core.runtime import history, progress
from components.core.runtime.checkpoint import Checkpoints
from components.core.runtime.device import resolve_device
from components.core.runtime.stage import Stage, run
from components.core.training import optim
from components.core.training.balance import class_weights_for, log_priors_for, order_for
from components.core.training.batches import batches_of_views
from components.core.training.loop import Loss, Recipe, cross_entropy, fit
from components.core.training.parallel import shard_of_batch
from components.core.views.mixing import Views
from components.finetune.finished import check_finished
from components.finetune.l2_sp import backbone, with_l2_sp
from components.finetune.strategy import PROBED, TRAINED, in_effect
from components.finetune.transfer import freeze_batch_norm, layer_decay_groups, linear_probe
from components.finetune.unfreezing import frozen, layer_groups


def main(stage: Stage) -> None:
    """Adapt the pretrained network to the labeled images by ``finetune.strategy``."""
    params, settings = stage.params, stage.params.finetune
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    stage.environment |= computing(device, settings.precision, params.run.compile)
    seed_everything(params.seed)
    dataset = read_dataset(stage.read("ingest/images.json"))
    train = open_shard(stage.read("ingest/shards/train"), params.run.workers)
    val = open_shard(stage.read("ingest/shards/val"), params.run.workers)
    pretrained = load(stage.read("pretrain/model.safetensors"))
    strategy = in_effect(settings.strategy, params.distill.when)
    if strategy == "none":
        check_finished(pretrained.spec, dataset.classes, dataset.channels, params.pretrain.weights)
        teacher = pretrained
    else:
        teacher = adapted(pretrained, dataset.classes, settings.image_size, dataset.channels).to(device)
    checkpoints = stage.checkpoints("finetune")
    phases = {}
    if strategy in PROBED:
        phases["probe"] = _probe(stage, teacher, train, val, checkpoints, device)
    if strategy in TRAINED:
        if settings.freeze_batch_norm:
            freeze_batch_norm(teacher)
        phase = "full" if strategy == "lp-ft" else strategy
        phases[phase] = _train(stage, teacher, train, val, checkpoints, device, phase)
    if stage.world.first:
        save(teacher, stage.out("model.safetensors"))
        history.write(stage.out("history.parquet"), phases)
    checkpoints.clear()


def _probe(
    stage: Stage, teacher: PixelModel, train: Shard, val: Shard, checkpoints: Checkpoints, device: torch.device
) -> list[dict[str, float]]:
    settings, params = stage.params.finetune, stage.params
    classes = len(teacher.spec.classes)
    with progress.bar("finetune", "linear probe", settings.probe_views * len(train)) as bar:
        return linear_probe(
            teacher,
            train,
            val,
            views=settings.probe_views,
            steps=settings.probe_steps,
            lr=settings.probe_lr,
            weight_decay=settings.weight_decay,
            batch_size=settings.batch_size,
            seed=params.seed,
            augment=settings.augment.model_dump(),
            device=device,
            scratch=stage.out("."),
            report=history.to_journal(stage.journal, checkpoints, "probe"),
            advance=bar.advance,
            class_weights=class_weights_for(settings.balance, train.labels, classes, device),
            log_priors=log_priors_for(settings.balance, train.labels, classes, device),
        )


def _train(
    stage: Stage,
    teacher: PixelModel,
    train: Shard,
    val: Shard,
    checkpoints: Checkpoints,
    device: torch.device,
    phase: str,
) -> list[dict[str, float]]:
    settings, params = stage.params.finetune, stage.params
    labels = torch.from_numpy(train.labels)
    batch_size = min(settings.batch_size, len(train))
    epoch = max(1, len(train) // batch_size)
    steps, begun = settings.epochs * epoch, settings.probe_steps if settings.strategy in PROBED else 0
    recipe = Recipe.of(
        settings.model_dump(), batch_size=batch_size, steps=steps, eval_every=epoch, compile=params.run.compile
    )
    shard = shard_of_batch(stage.world, batch_size, "finetune.batch_size")
    views = Views(train, params.seed, settings.augment.model_dump())
    balanced = order_for(settings.balance, train.labels)
    batches = batches_of_views(
        views, None, lambda indices, _: (labels[indices],), batch_size, device, shard=shard, balanced=balanced
    )
    log_priors = log_priors_for(settings.balance, train.labels, len(teacher.spec.classes), device)
    loss: Loss = partial(cross_entropy, log_priors=log_priors)
    pretrained: dict[str, nn.Parameter] = backbone(teacher.net) if settings.l2_sp else {}
    if pretrained:
        loss = with_l2_sp(loss, pretrained.values(), settings.l2_sp)
    groups = layer_decay_groups(teacher, settings.weight_decay, settings.layer_decay, exempt=pretrained)
    optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    with progress.bar("finetune", f"{phase} fine-tuning", steps * batch_size, done=checkpoints.images) as bar:
        return fit(
            teacher,
            optimizer,
            batches,
            loss,
            val,
            recipe,
            device,
            checkpoints,
            report=history.to_journal(stage.journal, checkpoints, phase, begun),
            advance=bar.advance,
            world=stage.world,
            train=train,
            frozen=_frozen(stage, teacher, epoch) if phase == "gradual-unfreezing" else None,
        )


def _frozen(stage: Stage, teacher: PixelModel, epoch: int) -> Callable[[int], list[nn.Parameter]]:
    groups, epochs = layer_groups(teacher.net), stage.params.finetune.epochs
    if epochs < len(groups) and stage.world.first:
        sys.stdout.write(
            f"Note: {epochs} epochs train the upper {epochs} of {len(groups)} layer groups; the others stay as they "
            f"were pretrained unless finetune.epochs is at least {len(groups)}.\n"
        )
    return lambda step: frozen(groups, step, epoch)


if __name__ == "__main__":
    run("finetune", main)
