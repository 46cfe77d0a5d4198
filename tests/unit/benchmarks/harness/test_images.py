import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.harness.images import part, read_images, read_split
from reflux.components.core.data.shards import UNLABELED


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files, the second of images without labels."""
    paths = [tmp_path / "train.parquet", tmp_path / "unlabeled.parquet"]
    for path, labels, gray in zip(paths, ([3, 1], [None, None]), (10, 200), strict=True):
        images = []
        for offset in (0, 1):
            file = io.BytesIO()
            Image.fromarray(np.full((28, 28), gray + offset, np.uint8)).save(file, "PNG")
            images.append({"bytes": file.getvalue()})
        pq.write_table(pa.table({"image": images, "label": pa.array(labels, pa.int64())}), path)
    return paths


def test_images_are_read_from_several_files_with_ids_of_their_content(files: list[Path]):
    images = read_images(files, count=3)
    assert images.images.shape == (3, 28, 28, 1)
    assert images.images[:][:, 0, 0, 0].tolist() == [10, 11, 200]
    assert images.labels.tolist() == [3, 1, UNLABELED]
    assert len(set(images.ids.tolist())) == 3
    assert part(images, slice(1, 2)).labels.tolist() == [1]


def test_a_missing_split_is_a_sentence(files: list[Path]):
    assert len(read_split(files[0].parent, "train")) == 2
    with pytest.raises(SystemExit, match=r"test\.parquet does not exist"):
        read_split(files[0].parent, "test")
