from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.data.shards import Shard
from reflux.components.stages.evaluate import trained_on


def test_all_images_but_those_of_the_test_split_are_kept_by_their_ids_and_those_of_other_datasets(tmp_path: Path):
    digests = ["ff" * 32, "01" * 32, "02" * 32, "03" * 32]
    table = pa.table({"sha256": digests, "split": ["train", "test", "val", "unlabeled"]})
    pq.write_table(table, tmp_path / "manifest.parquet")

    other = Shard(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int64), np.array([5], np.uint64))
    trained_on.write(tmp_path / "manifest.parquet", tmp_path / "trained-on.npy", [other])

    ids = np.load(tmp_path / "trained-on.npy", allow_pickle=False)
    assert ids.dtype == np.uint64
    assert ids.tolist() == [5, 0x0202020202020202, 0x0303030303030303, 0xFFFFFFFFFFFFFFFF]
