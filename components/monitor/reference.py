"""What a champion's data looks like: measured by the retrain that made it, and kept for the monitor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from components.core.artifacts import atomic
from components.core.errors import UserError
from components.core.images.shards import UNLABELED, Images, Pixels, Shard, at_once, open_shard, read_dataset

STATISTICS = ("brightness", "contrast", "sharpness")
FILE = "drift/reference.npz"  # where a retrain's run in MLflow keeps it
SAMPLE = 2000
_SPLITS = ("train", "val", "test", "unlabeled")
_BATCH = 256
_DIGITS = 4  # noise of the last bits must not make equal images differ

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
NO_PREDICTIONS: tuple[Counts, Floats] = np.zeros(0, np.int64), np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """The figures of some images that are compared.

    Attributes:
        classes: class names in label order.
        shape: (H, W, C) of the images.
        counts: int64 [classes], labeled images of each class.
        statistics: by name, float64 [n], of a random sample of the images.
        predicted: int64 [classes of a model], how often it predicts each on images that it was not trained on.
        confidence: float64 [m], the probability of each of these predictions.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: Counts
    statistics: Mapping[str, Floats]
    predicted: Counts
    confidence: Floats


def sample(shards: Sequence[Shard], classes: Sequence[str], known: Ids, seed: int) -> tuple[Pixels, Counts, int]:
    """Draw from the images that are new, which are those whose ids are not ``known``.

    Returns:
        Up to ``SAMPLE`` new images, uint8 [n, H, W, C]; how many labeled new images each class has, [classes]; and how
        many images are new.
    """
    rows = [np.flatnonzero(~np.isin(shard.ids, known)) for shard in shards]
    labels = np.concatenate([shard.labels[new] for shard, new in zip(shards, rows, strict=True)])
    counts = class_counts(labels[labels != UNLABELED], len(classes))
    total = sum(len(new) for new in rows)
    drawn = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    parts, begin = [], 0
    for shard, new in zip(shards, rows, strict=True):
        here = drawn[(drawn >= begin) & (drawn < begin + len(new))] - begin
        if len(here):
            parts.append(np.asarray(shard.images[new[here]]))
        begin += len(new)
    shape = shards[0].images.shape[1:]
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.uint8), counts, total


def statistics(images: Images | Pixels) -> dict[str, Floats]:
    """Brightness, contrast and sharpness of images uint8 [N, H, W, C], each float64 [N] on a 0..1 scale.

    They are the mean of the pixels, their standard deviation, and the mean step from a pixel to its neighbours.
    """
    size = at_once(images, _BATCH)
    parts = []
    for begin in range(0, len(images), size):
        pixels = np.asarray(images[begin : begin + size]).astype(np.float64).mean(axis=3) / 255
        steps = [np.abs(np.diff(pixels, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        parts.append(np.stack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), (steps[0] + steps[1]) / 2]))
    values = np.concatenate(parts, axis=1) if parts else np.zeros((len(STATISTICS), 0))
    return dict(zip(STATISTICS, values.round(_DIGITS), strict=True))


def predictions(logits: npt.NDArray[np.float32]) -> tuple[Counts, Floats]:
    """From logits [N, classes]: how often each class is predicted, int64 [classes], and how surely, float64 [N]."""
    from scipy.special import softmax

    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    return class_counts(logits.argmax(axis=1), logits.shape[1]), confidence.round(_DIGITS)


def class_counts(labels: npt.NDArray[np.integer], classes: int) -> Counts:
    """How often each of so many classes occurs."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def measure(artifacts: Path, seed: int) -> tuple[Sample, Ids]:
    """The figures of a pipeline run's data, and the ids of all its images.

    The student's predictions are those on the test split, the only images that nothing was trained on.
    """
    import pyarrow.parquet as pq

    classes, shards = open_dataset(artifacts)
    images, counts, _ = sample(shards, classes, np.zeros(0, np.uint64), seed)
    table = pq.read_table(artifacts / "evaluate" / "predictions.parquet", columns=["shipped", "shipped_confidence"])
    predicted = class_counts(table["shipped"].to_numpy(), len(classes))
    confidence = table["shipped_confidence"].to_numpy().astype(np.float64).round(_DIGITS)
    measured = Sample(classes, images.shape[1:], counts, statistics(images), predicted, confidence)
    return measured, np.concatenate([shard.ids for shard in shards])


def open_dataset(artifacts: Path) -> tuple[tuple[str, ...], list[Shard]]:
    """Open the dataset that ``ingest`` left: its class names and all its splits."""
    folder = artifacts / "ingest"
    return read_dataset(folder / "images.json").classes, [open_shard(folder / "shards" / name) for name in _SPLITS]


def save(path: Path, reference: Sample, ids: Ids) -> None:
    """Keep a reference with the ids of all its images: at most eight bytes for each, and 64 KB."""
    columns: dict[str, Any] = {f"statistic.{name}": values for name, values in reference.statistics.items()}
    with atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            classes=np.array(reference.classes, dtype=np.str_),
            shape=np.array(reference.shape),
            counts=reference.counts,
            predicted=reference.predicted,
            confidence=reference.confidence,
            ids=ids,
            **columns,
        )


def load(path: Path) -> tuple[Sample, Ids]:
    """Read a reference.

    Raises:
        UserError: the file is damaged, or no reference.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            columns = {name: kept[f"statistic.{name}"] for name in STATISTICS}
            classes = tuple(str(name) for name in kept["classes"])
            shape = tuple(int(side) for side in kept["shape"])
            reference = Sample(classes, shape, kept["counts"], columns, kept["predicted"], kept["confidence"])
            return reference, kept["ids"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is no reference of a retrain's data ({error}): retrain to keep a new one.") from None
