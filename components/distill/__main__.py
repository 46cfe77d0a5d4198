"""``python -m components.distill``: trains the student from the stored soft labels."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from components.core import stage
from components.core.artifacts import read_json
from components.core.errors import UserError
from components.core.shards import join, open_shard, read_dataset
from components.core.student import train_student
from components.core.views import views_key
from components.distill.losses import share_of_labels, total_loss

Indices = npt.NDArray[np.int64]


def main(this: stage.Stage) -> None:
    """Train on every labelled and unlabelled image, through the views whose soft labels are stored."""
    params = this.params
    dataset = read_dataset(this.read("ingest/dataset.json"))
    train, unlabeled, val = (
        open_shard(this.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "unlabeled", "val")
    )
    images = join(train, unlabeled)
    manifest, path = read_json(this.read("label/manifest.json")), this.read("label/logits.npy")
    expected = views_key(images.ids, params.seed, params.student.augment.model_dump())
    if manifest["views_key"] != expected or manifest["classes"] != list(dataset.classes):
        raise UserError(f"{path} holds soft labels of other images, views or classes: run `reflux run` to label anew.")
    soft_labels = torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))
    labels = torch.from_numpy(images.labels)
    loss = partial(
        total_loss,
        temperature=params.distill.temperature,
        label_weight=params.distill.label_weight,
        teacher_weight=params.distill.teacher_weight,
    )

    def targets_of(indices: Indices, views: Indices) -> tuple[torch.Tensor, ...]:
        own = labels[indices]
        return soft_labels[views, indices].float(), own.clamp(min=0), share_of_labels(own)

    train_student(this, dataset, images, val, len(soft_labels), targets_of, loss)


if __name__ == "__main__":
    stage.run("distill", main)
