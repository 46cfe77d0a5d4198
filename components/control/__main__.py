"""``python -m components.control``: what distillation is measured against."""

import torch
from torch import Tensor

from components.core.images.shards import open_shard, read_dataset
from components.core.runtime import stage
from components.core.runtime.device import resolve_device
from components.core.student import keep_student, new_student, train
from components.core.training.loop import cross_entropy
from components.core.views.mixing import Indices, Views, mixed_labels


def main(this: stage.Stage) -> None:
    """Train the student without a teacher; unlike distillation's, its views never repeat."""
    params = this.params
    dataset = read_dataset(this.read("ingest/dataset.json"))
    images, val = (open_shard(this.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "val"))
    labels = torch.from_numpy(images.labels)
    shown = Views(images, params.seed, params.student.augment.model_dump())

    def hard(indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        return mixed_labels(labels, indices, shown.mix(indices, views), len(dataset.classes))[:1]

    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    student = new_student(this, dataset, device)
    checkpoints = this.checkpoints("student")
    rows = train(this, student, device, checkpoints, images, val, None, hard, cross_entropy)
    keep_student(this, student, {this.name: rows}, checkpoints)


if __name__ == "__main__":
    stage.run("control", main)
