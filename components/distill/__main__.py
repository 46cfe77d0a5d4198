"""``python -m components.distill``: trains the student from the stored soft labels."""

from functools import partial

import torch

from components.core import stage
from components.core.artifacts import read_json
from components.core.shards import join, open_shard, read_dataset
from components.core.soft_labels import Indices, open_store
from components.core.student import train_student
from components.core.views import views_key
from components.distill.losses import share_of_labels, total_loss


def main(this: stage.Stage) -> None:
    """Train on every labelled and unlabelled image, through the views whose soft labels are stored."""
    params = this.params
    dataset = read_dataset(this.read("ingest/dataset.json"))
    train, unlabeled, val = (
        open_shard(this.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "unlabeled", "val")
    )
    images = join(train, unlabeled)
    soft_labels = open_store(
        this.read("label/store"),
        read_json(this.read("label/manifest.json")),
        this.read("finetune/model.safetensors"),
        views_key(images.ids, params.seed, params.student.augment.model_dump()),
        dataset.classes,
    )
    labels = torch.from_numpy(images.labels)
    loss = partial(
        total_loss,
        temperature=params.distill.temperature,
        label_weight=params.distill.label_weight,
        teacher_weight=params.distill.teacher_weight,
    )

    def targets_of(indices: Indices, views: Indices) -> tuple[torch.Tensor, ...]:
        own = labels[indices]
        return soft_labels(indices, views), own.clamp(min=0), share_of_labels(own)

    train_student(this, dataset, images, val, soft_labels.views, targets_of, loss)


if __name__ == "__main__":
    stage.run("distill", main)
