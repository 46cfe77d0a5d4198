"""``python -m components.control``: what distillation is measured against."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from components.core import stage
from components.core.mixing import Indices, Views, mixed_labels
from components.core.shards import open_shard, read_dataset
from components.core.student import train_student


def main(this: stage.Stage) -> None:
    """Train the student without a teacher; unlike distillation's, its views never repeat."""
    dataset = read_dataset(this.read("ingest/dataset.json"))
    workers = this.params.run.workers
    train, val = (open_shard(this.read(f"ingest/shards/{split}"), workers) for split in ("train", "val"))
    labels = torch.from_numpy(train.labels)
    shown = Views(train, this.params.seed, this.params.student.augment.model_dump())

    def hard(indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        return mixed_labels(labels, indices, shown.mix(indices, views), len(dataset.classes))[:1]

    train_student(this, dataset, train, val, None, hard, partial(cross_entropy, reduction="none"))


if __name__ == "__main__":
    stage.run("control", main)
