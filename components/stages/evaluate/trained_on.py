"""The images that a model was made from, kept with it: on a later test split, it must not be compared on them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from reflux.components.core.artifacts import atomic
from reflux.components.core.data.shards import Shard, ids_of


def write(manifest: Path, path: Path, others: Iterable[Shard] = ()) -> None:
    """Write the ids of all images that are not in the test split, uint64 [N], in ascending order.

    Those are the images that teacher and student learned from, and those that chose their weights.

    Args:
        manifest: of the dataset.
        path: of the file.
        others: the images of other datasets that taught teacher or student, or chose their weights.
    """
    table = pq.read_table(manifest, columns=["sha256"], filters=[("split", "!=", "test")])
    ids = np.concatenate([ids_of(table["sha256"].to_pylist()), *(other.ids for other in others)])
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.sort(ids))
