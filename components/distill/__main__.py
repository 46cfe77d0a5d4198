"""``python -m components.distill``: trains the student from the teacher's soft labels, stored or asked for."""

from functools import partial

import torch
from torch import Tensor

from components.core import stage
from components.core.artifacts import read_json
from components.core.device import pick
from components.core.mixing import Views, labelled_views, mixed_labels
from components.core.models import check_classes, load
from components.core.shards import join, open_shard, read_dataset
from components.core.soft_labels import Indices, ask, open_store
from components.core.student import train_student
from components.core.views import views_key
from components.distill.losses import mixture, share_of_labels, total_loss


def main(this: stage.Stage) -> None:
    """Train on every labelled and unlabelled image, through the views that ``label`` was told of."""
    params = this.params
    dataset = read_dataset(this.read("ingest/dataset.json"))
    train, unlabeled, val = (
        open_shard(this.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "unlabeled", "val")
    )
    images = join(train, unlabeled)
    store, manifest = this.read("label/store"), read_json(this.read("label/manifest.json"))
    teacher_path = this.read("finetune/model.safetensors")
    labels = torch.from_numpy(images.labels)
    loss = partial(
        total_loss,
        temperature=params.distill.temperature,
        label_weight=params.distill.label_weight,
        teacher_weight=params.distill.teacher_weight,
    )

    augment = params.student.augment.model_dump()
    shown = Views(images, params.seed, augment)

    def hard(indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        mix = shown.mix(indices, views)
        targets, known = mixed_labels(labels, indices, mix, len(dataset.classes))
        return targets, share_of_labels(known)

    if params.distill.teacher == "live":
        device = pick(params.run.device, params.run.threads, params.run.deterministic)
        teacher = load(teacher_path).to(device)
        check_classes(teacher, dataset.classes, teacher_path)
        live = partial(ask, teacher, device=device)
        train_student(this, dataset, images, val, manifest["views"], hard, loss, live)
        return
    mixes = params.distill.mixed_targets == "mixture"
    key = views_key(images.ids, params.seed, labelled_views(augment, params.distill.mixed_targets))
    stored = open_store(store, manifest, teacher_path, key, dataset.classes)

    def soft_and_hard(indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        soft, mix = stored(indices, views), shown.mix(indices, views) if mixes else None
        if mix is not None:
            share = torch.from_numpy(mix.share).float()
            soft = mixture(soft, stored(mix.partners, views), share, params.distill.temperature)
        return soft, *hard(indices, views)

    train_student(this, dataset, images, val, stored.views, soft_and_hard, loss)


if __name__ == "__main__":
    stage.run("distill", main)
