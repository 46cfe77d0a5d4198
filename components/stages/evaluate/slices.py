"""Accuracy on parts of the test split: each class, and each value of the columns in ``ingest.slices``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from reflux.components.core.contract import SLICE
from reflux.components.core.errors import UserError

CLASS = "class"

Slices = dict[str, dict[str, dict[str, Any]]]


def read(manifest: Path, count: int) -> dict[str, list[str]]:
    """The slices of each test image, by column, in the order of the test shard's ``count`` rows.

    Raises:
        UserError: the manifest lists other images than the shard holds.
    """
    columns = [name for name in pq.read_schema(manifest).names if name.startswith(SLICE)]
    table = pq.read_table(manifest, columns=["row", *columns], filters=[("split", "=", "test")]).sort_by("row")
    if not np.array_equal(table["row"].to_numpy(), np.arange(count)):
        raise UserError(
            f"{manifest} lists other test images than artifacts/ingest/shards/test holds: run `reflux run` to "
            "ingest again."
        )
    return {name.removeprefix(SLICE): table[name].to_pylist() for name in columns}


def measure(
    classes: Sequence[str],
    labels: npt.NDArray[np.int64],
    columns: Mapping[str, list[str]],
    right: npt.NDArray[np.bool_],
) -> Slices:
    """``n`` and ``accuracy`` of every slice by column; the column ``class`` holds the classes, with their recall.

    A class without test images was not measured and is absent. Labels, each column, and ``right`` (whether an image was
    recognized) have a value for each image, [N].
    """
    values_of = {CLASS: [classes[label] for label in labels], **columns}
    return {column: _by_value(values, right) for column, values in values_of.items()}


def _by_value(values: list[str], right: npt.NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    names, place = np.unique(np.array(values, dtype=object), return_inverse=True)
    counts, hits = np.bincount(place), np.bincount(place, weights=right)
    return {
        str(name): {"n": int(n), "accuracy": float(hit / n)} for name, n, hit in zip(names, counts, hits, strict=True)
    }
