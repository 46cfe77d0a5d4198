"""The images and the cells of the benchmark of ImageNet's weights."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.images import read_split
from benchmarks.transfer import imagenet
from reflux.components.core.params.file import check_overrides


def test_as_many_images_of_each_class_as_asked_for_are_drawn_and_none_that_is_held_out(tmp_path: Path):
    both = [pq.read_table(imagenet.SAMPLE / f"{split}.parquet") for split in ("val", "train")]
    pq.write_table(pa.concat_tables(both), tmp_path / "train.parquet")
    drawn, held_out = [], read_split(imagenet.SAMPLE, "val").ids
    for seed in (0, 1):
        imagenet.write_images(tmp_path, tmp_path / str(seed), labels=20, seed=seed)
        train, val, test = (read_split(tmp_path / str(seed), split) for split in ("train", "val", "test"))
        assert np.bincount(train.labels).tolist() == [20] * 10
        assert (len(val), len(test)) == (imagenet.VAL, imagenet.TEST)
        assert not np.isin(train.ids, held_out).any()
        drawn.append(set(train.ids))
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("arm", imagenet.ARMS)
def test_each_cell_is_one_that_the_params_allow(arm: str):
    name, settings = imagenet.ARMS[arm]
    params = check_overrides([*imagenet.RECIPE, f"pretrain.model={name}", *settings])
    assert params.pretrain.model[-5:] == arm[:5].lower()
