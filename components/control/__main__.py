"""``python -m components.control``: what distillation is measured against."""

from functools import partial

import torch
from torch.nn.functional import cross_entropy

from components.core import stage
from components.core.shards import open_shard, read_dataset
from components.core.student import train_student


def main(this: stage.Stage) -> None:
    """Train the student without a teacher; unlike distillation's, its views never repeat."""
    dataset = read_dataset(this.read("ingest/dataset.json"))
    workers = this.params.run.workers
    train, val = (open_shard(this.read(f"ingest/shards/{split}"), workers) for split in ("train", "val"))
    labels = torch.from_numpy(train.labels)
    loss = partial(cross_entropy, reduction="none")
    train_student(this, dataset, train, val, None, lambda indices, _views: (labels[indices],), loss)


if __name__ == "__main__":
    stage.run("control", main)
