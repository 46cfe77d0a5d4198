import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import NAMES, hugging_face, rows_of, slices_of


def test_hugging_face_folder(tmp_path: Path) -> None:
    hugging_face(tmp_path / "data" / "train-00000-of-00001.parquet", [1, 0], NAMES)
    hugging_face(tmp_path / "data" / "validation.parquet", [2], NAMES)
    hugging_face(tmp_path / "data" / "unlabeled.parquet", None)
    source = open_source(tmp_path)
    assert source.classes == NAMES
    assert source.count == 5
    assert rows_of(source) == [
        ("data/train-00000-of-00001.parquet#0", "train", "dog"),
        ("data/train-00000-of-00001.parquet#1", "train", "cat"),
        ("data/unlabeled.parquet#0", "unlabeled", None),
        ("data/unlabeled.parquet#1", "unlabeled", None),
        ("data/validation.parquet#0", "val", "owl"),
    ]
    assert next(item.data for item in source.items) == b"train-00000-of-000010"


def test_one_hugging_face_file_without_splits_or_names(tmp_path: Path) -> None:
    source = open_source(hugging_face(tmp_path / "images.parquet", [10, 9, None, 9], column="img"))
    assert source.classes == ["9", "10"]
    assert [row[1:] for row in rows_of(source)] == [(None, "10"), (None, "9"), ("unlabeled", None), (None, "9")]


def test_split_column_and_string_labels(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "x.parquet", ["b", "a", "b"], split=["Train", "test", "unlabeled"])
    assert rows_of(open_source(file)) == [
        *(("x.parquet#0", "train", "b"), ("x.parquet#1", "test", "a"), ("x.parquet#2", "unlabeled", None))
    ]


def test_split_from_the_folder_of_a_file(tmp_path: Path) -> None:
    hugging_face(tmp_path / "default" / "train" / "0000.parquet", [0, 1])
    hugging_face(tmp_path / "default" / "test" / "0000.parquet", [1, 0])
    assert {(path.split("#")[0], split) for path, split, _ in rows_of(open_source(tmp_path))} == {
        ("default/train/0000.parquet", "train"),
        ("default/test/0000.parquet", "test"),
    }


def test_image_given_by_path_alone_is_read_next_to_the_table(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "a/1.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "t.parquet")
    assert next(iter(open_source(tmp_path).items)).data == tmp_path / "a" / "1.png"


def test_embedded_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "../x"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="leaves its own folder"):
        list(open_source(tmp_path).items)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "train.parquet", list(range(3)) * 50, NAMES)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="is not readable Parquet"):
        open_source(file)
    # The footer is whole and the pages are not: found out while reading.
    file.write_bytes(whole[:4] + bytes(255 - b for b in whole[4:400]) + whole[400:])
    with pytest.raises(UserError, match="is not readable Parquet"):
        list(open_source(file).items)


def test_names_of_classes_that_are_no_list_are_none(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "train.parquet", [0, 1])
    info = {"info": {"features": {"label": {"names": None}}}}
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": json.dumps(info)}), file)
    assert open_source(file).classes == ["0", "1"]


def test_columns_of_hugging_face_files_are_kept_and_unlabeled_ones_need_none(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 1], NAMES, **{"camera.model": ["x", None], "site": [3, 4]})
    hugging_face(tmp_path / "unlabeled.parquet", None)
    source = open_source(tmp_path, ["site", "camera.model"])
    assert slices_of(source) == [("3", "x"), ("4", "none"), ("none", "none"), ("none", "none")]
    assert slices_of(open_source(tmp_path, ["label"]))[:2] == [("0",), ("1",)]


def test_a_file_without_images_next_to_others_is_a_manifest(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 1], NAMES)
    pq.write_table(pa.table({"path": ["1.png"], "label": [2]}), tmp_path / "test.parquet")
    assert rows_of(open_source(tmp_path)) == [
        ("1.png", "test", "owl"),
        ("train.parquet#0", "train", "cat"),
        ("train.parquet#1", "train", "dog"),
    ]
