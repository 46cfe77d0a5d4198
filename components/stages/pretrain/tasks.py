"""Several label columns of one source: a backbone that learns them together, with a head for each (Caruana 1997)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.contract import MISSING, SLICE
from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.core.training.batches import TargetsOf
from reflux.components.core.training.loop import Loss, cross_entropy
from reflux.components.modalities.image.models.pixel_model import PixelModel

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A label column of the source next to its labels.

    Attributes:
        name: of the column.
        weight: of its loss; that of the labels has 1.
        classes: its values.
        labels: by split, of each image [N]; ``UNLABELED`` where the cell is empty, or has no value of training images.
    """

    name: str
    weight: float
    classes: tuple[str, ...]
    labels: Mapping[str, Labels]

    @property
    def key(self) -> str:
        """The name as MLflow takes it in those of metrics."""
        return re.sub(r"[^\w.\- ]", "-", self.name)


def read_tasks(manifest: Path, weights: Mapping[str, float]) -> tuple[Task, ...]:
    """Read columns of the source, each with the weight of its loss, from the manifest that ``ingest`` left of it.

    Raises:
        UserError: the training images have one value in a column, or none.
    """
    import pyarrow.parquet as pq

    columns = [f"{SLICE}{name}" for name in weights]
    table = pq.read_table(manifest, columns=["split", "row", *columns]).to_pandas().astype({"split": "str"})
    tasks = []
    for column, (name, weight) in zip(columns, weights.items(), strict=True):
        values = table[column].where(table[column] != MISSING)
        classes = tuple(sorted(values[table["split"] == "train"].dropna().unique()))
        if len(classes) < 2:
            raise UserError(
                f"pretrain.tasks names the column {name}, in which the training images of pretrain.source have "
                f"{len(classes) or 'no'} value: a task needs two or more; leave it out."
            )
        indices = values.map({value: index for index, value in enumerate(classes)}).fillna(UNLABELED).astype(np.int64)
        ordered = table.assign(label=indices).sort_values("row")
        labels = {split: part["label"].to_numpy(copy=True) for split, part in ordered.groupby("split")}
        tasks.append(Task(name, weight, classes, labels))
    return tuple(tasks)


def width_of(model: PixelModel) -> int:
    """The number of a network's pooled features."""
    side = model.spec.image_size
    with torch.no_grad():
        return model.eval().features(model.mean.new_zeros(1, model.spec.in_chans, side, side)).shape[1]


class MultiTask(nn.Module):
    """A network with a further head for each task; in eval mode it returns the logits of its own head alone."""

    def __init__(self, model: PixelModel, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.model = model
        width = width_of(model)
        self.heads = nn.ModuleList(nn.Linear(width, len(task.classes)) for task in tasks)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.model(pixels)
        features = self.model.features(pixels)
        own = self.model.net.get_classifier()  # type: ignore[operator]
        return tuple(head(features).float() for head in (own, *self.heads))


class Headed(nn.Module):
    """A network under one of the further heads: pixels [N, C, H, W] to that task's logits [N, K]."""

    def __init__(self, model: PixelModel, head: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.model.features(pixels))


def loss_of(tasks: Sequence[Task]) -> Loss:
    """The loss of :class:`MultiTask`: the labels' cross-entropy ``ce``, and each task's times its weight.

    A task's is the mean over the images of the batch that have a value in its column.
    """

    def loss(logits: tuple[Tensor, ...], labels: Tensor, *others: Tensor) -> dict[str, Tensor]:
        parts = cross_entropy(logits[0], labels)
        for task, own, target in zip(tasks, logits[1:], others, strict=True):
            known = (target != UNLABELED).float().mean().clamp(min=1 / len(target))
            value = F.cross_entropy(own, target, reduction="none", ignore_index=UNLABELED)
            parts[f"ce-{task.key}"] = task.weight * value / known
        return parts

    return loss


def targets_of(tasks: Sequence[Task], labels_of: TargetsOf) -> TargetsOf:
    """The targets of training on the labels, followed by those of each task."""
    own = [torch.from_numpy(task.labels["train"]) for task in tasks]

    def targets(indices: Labels, numbers: Labels) -> tuple[Tensor, ...]:
        return (*labels_of(indices, numbers), *(labels[indices] for labels in own))

    return targets
