"""``python -m components.finetune``: makes the teacher."""

import torch

from components.core.images.shards import Shard, open_shard, read_dataset
from components.core.models.pixel_model import PixelModel, adapted, load, save, seed_everything
from components.core.runtime import history, progress, stage
from components.core.runtime.checkpoint import Checkpoints
from components.core.runtime.device import resolve_device
from components.core.training import optim
from components.core.training.batches import batches_of_views
from components.core.training.loop import cross_entropy, fit
from components.finetune.transfer import freeze_batch_norm, groups_with_layer_decay, linear_probe


def main(this: stage.Stage) -> None:
    """Adapt the pretrained network to the labelled images by the strategy asked for."""
    params, recipe = this.params, this.params.finetune
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    seed_everything(params.seed)
    dataset = read_dataset(this.read("ingest/dataset.json"))
    train = open_shard(this.read("ingest/shards/train"), params.run.workers)
    val = open_shard(this.read("ingest/shards/val"), params.run.workers)
    pretrained = load(this.read("pretrain/model.safetensors"))
    teacher = adapted(pretrained, dataset.classes, recipe.image_size, dataset.channels).to(device)
    checkpoints = this.checkpoints("finetune")
    # A student that transfers while it is distilled learns from what pretraining gave: the teacher only gets a head.
    strategy = "feature-extraction" if params.distill.when == "joint" else recipe.strategy
    phases = {}
    if strategy != "full":
        with progress.bar("finetune", "linear probe", recipe.probe_views * len(train)) as bar:
            phases["probe"] = linear_probe(
                teacher,
                train,
                val,
                views=recipe.probe_views,
                steps=recipe.probe_steps,
                lr=recipe.probe_lr,
                weight_decay=recipe.weight_decay,
                batch_size=recipe.batch_size,
                seed=params.seed,
                augment=recipe.augment.model_dump(),
                device=device,
                scratch=this.out("."),
                report=history.to_journal(this.journal, checkpoints, "probe"),
                advance=bar.advance,
            )
    if strategy != "feature-extraction":
        if recipe.freeze_batch_norm:
            freeze_batch_norm(teacher)
        phases["full"] = _full(this, teacher, train, val, checkpoints, device)
    if this.world.first:
        save(teacher, this.out("model.safetensors"))
        history.write(this.out("history.parquet"), phases)
    checkpoints.clear()


def _full(
    this: stage.Stage,
    teacher: PixelModel,
    train: Shard,
    val: Shard,
    checkpoints: Checkpoints,
    device: torch.device,
) -> list[dict[str, float]]:
    recipe, seed = this.params.finetune, this.params.seed
    labels = torch.from_numpy(train.labels)
    batch_size = min(recipe.batch_size, len(train))
    an_epoch = max(1, len(train) // batch_size)
    steps = recipe.epochs * an_epoch
    begun = recipe.probe_steps if recipe.strategy == "lp-ft" else 0
    share = this.world.shard_of_batch(batch_size, "finetune.batch_size")
    batches = batches_of_views(
        train,
        None,
        lambda indices, _: (labels[indices],),
        seed,
        batch_size,
        recipe.augment.model_dump(),
        device,
        share=share,
    )
    groups = groups_with_layer_decay(teacher, recipe.weight_decay, recipe.layer_decay)
    optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    with progress.bar("finetune", "full fine-tuning", steps * batch_size, done=checkpoints.images) as bar:
        return fit(
            teacher,
            batches,
            cross_entropy,
            val,
            optimizer,
            optim.schedule(optimizer, recipe.schedule, steps, recipe.warmup),
            steps=steps,
            eval_every=an_epoch,
            ema_decay=recipe.ema_decay,
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            device=device,
            checkpoints=checkpoints,
            report=history.to_journal(this.journal, checkpoints, "full", begun),
            advance=bar.advance,
            world=this.world,
            sync_batch_norm=recipe.sync_batch_norm,
            precision=recipe.precision,
            compile=this.params.run.compile,
            seen=train,
        )


if __name__ == "__main__":
    stage.run("finetune", main)
