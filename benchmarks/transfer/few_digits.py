"""scikit-learn's digits, of which few have a label, and the images of MNIST that ship with the tests."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.results import ROOT
from reflux.components.core.data.shards import Pixels

MNIST = ROOT / "tests/data/mnist"
VAL, TEST = 200, 600


def digits(
    labels: int, seed: int, held_out: tuple[int, int] = (TEST, VAL)
) -> tuple[Pixels, NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """All digits with their labels, and the rows of each split in an order of the seed.

    Args:
        labels: of each class to train on; the other images that are not held out are unlabeled.
        seed: of the order.
        held_out: images to test and to validate on.

    Returns:
        Images [N, 8, 8], labels [N], and the rows of train, val, test and unlabeled.
    """
    from sklearn.datasets import load_digits

    known = load_digits()
    images, targets = np.rint(known.images * 255 / 16).astype(np.uint8), known.target.astype(np.int64)
    test, val, rest = np.split(np.random.default_rng(seed).permutation(len(images)), [held_out[0], sum(held_out)])
    train = np.concatenate([rest[targets[rest] == number][:labels] for number in range(10)])
    return images, targets, {"train": train, "val": val, "test": test, "unlabeled": np.setdiff1d(rest, train)}


def write_digits(folder: Path, labels: int, seed: int, held_out: tuple[int, int] = (TEST, VAL)) -> None:
    """Write the digits as Parquet in a folder that is made; the rest as :func:`digits` has it."""
    images, targets, splits = digits(labels, seed, held_out)
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        rows_of_split = [{"image": {"bytes": _png(images[row])}, "label": int(targets[row])} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows_of_split), folder / f"{split}.parquet")


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
