"""``python -m components.finetune``: makes the teacher."""

import torch
from torch.nn.functional import cross_entropy

from components.core import history, progress, stage
from components.core.device import pick
from components.core.loop import Batch, fit
from components.core.models import PixelModel, load, save
from components.core.shards import Shard, open_shard, read_dataset
from components.core.student import checkpoint_path
from components.core.views import batch, draws, render
from components.finetune.transfer import adapt, freeze_batch_norm, groups_with_layer_decay, linear_probe


def main(this: stage.Stage) -> None:
    """Adapt the pretrained network to the labelled images by the strategy asked for."""
    params, recipe = this.params, this.params.finetune
    device = pick(params.run.device, params.run.threads)
    stage.seed_everything(params.seed)
    dataset = read_dataset(this.read("ingest/dataset.json"))
    train, val = open_shard(this.read("ingest/shards/train")), open_shard(this.read("ingest/shards/val"))
    pretrained = load(this.read("pretrain/model.safetensors"))
    teacher = adapt(pretrained, dataset, recipe.image_size).to(device)
    phases = {}
    if recipe.strategy != "full":
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
                report=history.to_journal(this.journal),
                advance=bar.advance,
            )
    if recipe.strategy != "feature-extraction":
        if recipe.freeze_batch_norm:
            freeze_batch_norm(teacher)
        phases["full"] = _full(this, teacher, train, val, device)
    save(teacher, this.out("model.safetensors"))
    history.write(this.out("history.parquet"), phases)


def _full(
    this: stage.Stage, teacher: PixelModel, train: Shard, val: Shard, device: torch.device
) -> list[dict[str, float]]:
    recipe, seed = this.params.finetune, this.params.seed
    labels = torch.from_numpy(train.labels)
    batch_size = min(recipe.batch_size, len(train))
    an_epoch = max(1, len(train) // batch_size)

    def batch_at(step: int) -> Batch:
        indices, epochs = batch(seed, step, len(train), batch_size)
        uniform = draws(seed, train.ids[indices], epochs)
        pixels = render(train.images[indices], uniform, **recipe.augment.model_dump(), device=device)
        return Batch(pixels, (labels[indices].to(device),))

    with progress.bar("finetune", "full fine-tuning", recipe.epochs * an_epoch * batch_size) as bar:
        return fit(
            teacher,
            batch_at,
            cross_entropy,
            val,
            groups=groups_with_layer_decay(teacher, recipe.weight_decay, recipe.layer_decay),
            optimizer="adamw",
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            warmup=recipe.warmup,
            steps=recipe.epochs * an_epoch,
            eval_every=an_epoch,
            ema_decay=recipe.ema_decay,
            device=device,
            checkpoint=checkpoint_path(this),
            report=history.to_journal(this.journal),
            advance=bar.advance,
        )


if __name__ == "__main__":
    stage.run("finetune", main)
