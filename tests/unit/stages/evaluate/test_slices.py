import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.evaluate import slices

CLASSES = ("cat", "dog", "owl")


def test_each_slice_counts_its_own_images():
    labels, right = np.array([0, 0, 1, 1, 1]), np.array([True, False, True, True, False])
    columns = {"camera": ["a", "b", "b", "none", "a"], "light": ["x"] * 5}
    assert slices.measure(CLASSES, labels, columns, right) == {
        "class": {"cat": {"n": 2, "accuracy": 0.5}, "dog": {"n": 3, "accuracy": pytest.approx(2 / 3)}},
        "camera": {
            "a": {"n": 2, "accuracy": 0.5},
            "b": {"n": 2, "accuracy": 0.5},
            "none": {"n": 1, "accuracy": 1.0},
        },
        "light": {"x": {"n": 5, "accuracy": pytest.approx(0.6)}},
    }


@pytest.mark.parametrize("name", ["camera", "camera.model", "lens [mm]", "größe/a", "slice:x"])
def test_slices_are_read_in_the_order_of_the_shard_s_rows(tmp_path, name):
    table = {"split": ["test", "train", "test", "test"], "row": [2, 0, 0, 1], f"slice:{name}": ["c", "no", "a", "b"]}
    pq.write_table(pa.table(table | {"label": [0] * 4}), tmp_path / "manifest.parquet")
    assert slices.read(tmp_path / "manifest.parquet", 3) == {name: ["a", "b", "c"]}
    for count in (2, 4):
        with pytest.raises(UserError, match="lists other test images"):
            slices.read(tmp_path / "manifest.parquet", count)


def test_a_dataset_without_columns_has_its_classes(tmp_path):
    pq.write_table(pa.table({"split": ["test"], "row": [0]}), tmp_path / "manifest.parquet")
    assert slices.read(tmp_path / "manifest.parquet", 1) == {}
    assert list(slices.measure(CLASSES, np.array([2]), {}, np.array([True]))) == ["class"]
