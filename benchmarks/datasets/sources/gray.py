"""Fashion-MNIST (Xiao et al. 2017, MIT) and MNIST (LeCun, Cortes, Burges, CC BY-SA 3.0): parts of the full sets.

Gray, 28 x 28 pixels, ten classes, as Parquet in the Hugging Face layout: ``train``, ``unlabeled`` where some are, and
the official ``test``. A part is drawn once, with a seed of its own. The sets repeat some pictures, in both splits too,
and these stay: a user's data has such as well.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEED = 15


def part(full: Path, out: Path, labeled: int | None, unlabeled: int = 0, per_class: bool = False) -> None:
    """Write a part of a full set.

    Args:
        full: a folder of ``train.parquet`` and ``test.parquet``; see benchmarks/README.md.
        out: the folder to write.
        labeled: training images that keep their label; None for all.
        unlabeled: further training images, without their label.
        per_class: draw as many labeled ones of each class; otherwise as they come.

    Raises:
        SystemExit: ``full`` lacks a file.
    """
    for name in ("train.parquet", "test.parquet"):
        if not (full / name).is_file():
            sys.exit(f"Error: {full / name} does not exist: give --data, see benchmarks/README.md.")
    train = pq.read_table(full / "train.parquet", columns=["image", "label"])
    rows = _rows(train["label"].to_numpy(), labeled, per_class)
    if labeled is not None:
        chosen, rest = rows[:labeled], rows[labeled : labeled + unlabeled]
        if unlabeled:
            pq.write_table(train.take(pa.array(np.sort(rest))).select(["image"]), out / "unlabeled.parquet")
        train = train.take(pa.array(np.sort(chosen)))
    pq.write_table(train, out / "train.parquet")
    pq.write_table(pq.read_table(full / "test.parquet", columns=["image", "label"]), out / "test.parquet")


def _rows(labels: np.ndarray, labeled: int | None, per_class: bool) -> np.ndarray:
    """All rows in a random order; the first ``labeled`` have as many of each class if ``per_class``."""
    rows = np.random.default_rng(SEED).permutation(len(labels))
    if not per_class or labeled is None:
        return rows
    classes = np.unique(labels)
    first = [rows[labels[rows] == label][: labeled // len(classes)] for label in classes]
    chosen = np.concatenate(first)
    return np.concatenate([chosen, rows[~np.isin(rows, chosen)]])
