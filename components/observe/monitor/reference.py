"""What a champion's data looks like: measured by the retrain that made it, and kept for the monitor."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from reflux.components.core.artifacts import atomic
from reflux.components.core.data.shards import Shard, open_shard, read_dataset
from reflux.components.core.errors import UserError
from reflux.components.core.shift import DIGITS, STATISTICS, Ids, Sample, class_counts, sample, statistics

FILE = "drift/reference.npz"  # where a retrain's run in MLflow keeps it
_SPLITS = ("train", "val", "test", "unlabeled")


def measure(artifacts: Path, seed: int) -> tuple[Sample, Ids]:
    """The figures of a pipeline run's data, and the ids of all its images.

    The student's predictions are those on the test split, the only images that nothing was trained on.
    """
    import pyarrow.parquet as pq

    classes, shards = open_dataset(artifacts)
    images, counts, _ = sample(shards, classes, np.zeros(0, np.uint64), seed)
    table = pq.read_table(artifacts / "evaluate" / "predictions.parquet", columns=["shipped", "shipped_confidence"])
    predicted = class_counts(table["shipped"].to_numpy(), len(classes))
    confidence = table["shipped_confidence"].to_numpy().astype(np.float64).round(DIGITS)
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
