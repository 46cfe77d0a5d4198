"""What networks learn before transfer learning: images without labels, or another dataset's labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reflux.components.core.data.shards import Dataset, Shard, join, open_shard, read_dataset
from reflux.components.core.inference import predict
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.pretrain.possible import check_installed, refuse_no_images
from reflux.components.stages.pretrain.tasks import Headed, Task, read_tasks


@dataclass(frozen=True)
class Lesson:
    """The images of a pretraining.

    Attributes:
        dataset: its classes, and the facts of its images.
        images: to learn from.
        labeled: those on which the curves show the accuracy.
        val: choose the weights.
        held_out: of the source, to say what was reached; None where no labels teach.
        tasks: further label columns of the source.
    """

    dataset: Dataset
    images: Shard
    labeled: Shard
    val: Shard
    held_out: Shard | None = None
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Reached:
    """What a network reached on the source's held-out images, a row of ``reached.json``.

    Attributes:
        role: ``teacher`` or ``student``.
        model: the network's name.
        task: the label column of ``pretrain.tasks``; None for the labels.
        images, held_out: numbers of images, learned and held out.
        classes: their number.
        accuracy: of the held-out images, 0..1.
        lowest_class, lowest_recall: the class of which the fewest are recognized, and their share.
    """

    role: str
    model: str
    task: str | None
    images: int
    held_out: int
    classes: int
    accuracy: float
    lowest_class: str
    lowest_recall: float

    def sentence(self, source: str) -> str:
        """The row in words."""
        what = f"the {self.task} of " if self.task else ""
        return (
            f"{self.model} ({self.role}) recognizes {what}{100 * self.accuracy:.2f} % of {self.held_out:,} held-out "
            f"images of {source}; of its {self.classes} classes {self.lowest_class} least, "
            f"{100 * self.lowest_recall:.1f} %"
        )


def without_labels(stage: Stage) -> Lesson:
    """All training images of the dataset, labeled and unlabeled.

    Raises:
        UserError: lightly is not installed, or there are no unlabeled images.
    """
    check_installed()
    workers = stage.params.run.workers
    dataset = read_dataset(stage.read("ingest/images.json"))
    splits = (stage.read(f"ingest/shards/{split}") for split in ("train", "unlabeled", "val"))
    labeled, unlabeled, val = (open_shard(split, workers) for split in splits)
    refuse_no_images(stage.params.pretrain.mode, len(unlabeled))
    return Lesson(dataset, join(labeled, unlabeled), labeled, val)


def from_source(stage: Stage) -> Lesson:
    """The labeled images of ``pretrain.source``, as ``ingest`` has stored them."""
    folder = stage.read("ingest/pretrain-source")
    train, val, test = (
        open_shard(folder / "shards" / split, stage.params.run.workers) for split in ("train", "val", "test")
    )
    weights = stage.params.pretrain.tasks
    tasks = read_tasks(folder / "manifest.parquet", weights) if weights else ()
    return Lesson(read_dataset(folder / "images.json"), train, train, val, test, tasks)


def reached(
    role: str, model: PixelModel, images: int, held_out: Shard, classes: Sequence[str], device: torch.device
) -> Reached:
    """Judge a network that has learned so many images of these classes by held-out ones."""
    predicted = predict(model, held_out.images, device).argmax(1).cpu()
    return _judged(role, model.spec.name, None, images, predicted, torch.from_numpy(held_out.labels), classes)


def reached_in(
    task: Task, role: str, model: PixelModel, head: nn.Module, held_out: Shard, device: torch.device
) -> Reached | None:
    """Judge the head of a further task by the held-out images that have a value in its column; None if none has."""
    labels = torch.from_numpy(task.labels["test"])
    known = labels >= 0
    if not known.any():
        return None
    predicted = predict(Headed(model, head), held_out.images, device).argmax(1).cpu()
    learned = int((task.labels["train"] >= 0).sum())
    return _judged(role, model.spec.name, task.name, learned, predicted[known], labels[known], task.classes)


def _judged(
    role: str, model: str, task: str | None, images: int, predicted: Tensor, labels: Tensor, classes: Sequence[str]
) -> Reached:
    right = predicted == labels
    recalls = {name: float(right[labels == label].double().mean()) for label, name in enumerate(classes)}
    shown = {name: recall for name, recall in recalls.items() if not math.isnan(recall)}
    lowest = min(shown, key=lambda name: shown[name])
    accuracy = float(right.double().mean())
    return Reached(role, model, task, images, len(labels), len(classes), accuracy, lowest, shown[lowest])
