import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import UserError
from components.ingest.items import Source
from components.ingest.source import open_source

NAMES = ["cat", "dog", "owl"]


def hugging_face(
    path: Path, labels: list[Any] | None, names: list[str] | None = None, column: str = "image", **more: list[Any]
) -> Path:
    rows = len(labels) if labels is not None else 2
    images = [{"bytes": f"{path.stem}{i}".encode(), "path": None} for i in range(rows)]
    columns: dict[str, Any] = {column: pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = pa.array(labels)
    table = pa.table(columns | {name: pa.array(values) for name, values in more.items()})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def seen(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(i.path, i.split, source.classes[i.label] if i.label >= 0 else None) for i in source.items]


def test_hugging_face_folder(tmp_path: Path) -> None:
    hugging_face(tmp_path / "data" / "train-00000-of-00001.parquet", [1, 0], NAMES)
    hugging_face(tmp_path / "data" / "validation.parquet", [2], NAMES)
    hugging_face(tmp_path / "data" / "unlabeled.parquet", None)
    source = open_source(tmp_path)
    assert source.classes == NAMES
    assert source.count == 5
    assert seen(source) == [
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
    assert [row[1:] for row in seen(source)] == [(None, "10"), (None, "9"), ("unlabeled", None), (None, "9")]


def test_split_column_and_string_labels(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "x.parquet", ["b", "a", "b"], split=["Train", "test", "unlabeled"])
    assert seen(open_source(file)) == [
        *(("x.parquet#0", "train", "b"), ("x.parquet#1", "test", "a"), ("x.parquet#2", "unlabeled", None))
    ]


def test_split_from_the_folder_of_a_file(tmp_path: Path) -> None:
    hugging_face(tmp_path / "default" / "train" / "0000.parquet", [0, 1])
    hugging_face(tmp_path / "default" / "test" / "0000.parquet", [1, 0])
    assert {(path.split("#")[0], split) for path, split, _ in seen(open_source(tmp_path))} == {
        ("default/train/0000.parquet", "train"),
        ("default/test/0000.parquet", "test"),
    }


def test_image_given_by_path_alone_is_read_beside_the_table(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "a/1.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "t.parquet")
    assert next(iter(open_source(tmp_path).items)).data == tmp_path / "a" / "1.png"


def csv(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8-sig")
    return file


def test_csv_manifest(tmp_path: Path) -> None:
    csv(
        tmp_path,
        "File_Name;Class;Split\na/1.png;NA;train\nb/2.png;007;valid\nb/./3.png;7;\nc.png;;unlabeled\nd.png;;\n",
    )
    source = open_source(tmp_path)
    assert source.classes == ["007", "7", "NA"]
    assert seen(source) == [
        ("a/1.png", "train", "NA"),
        ("b/2.png", "val", "007"),
        ("b/3.png", None, "7"),
        ("c.png", "unlabeled", None),
        ("d.png", "unlabeled", None),
    ]
    assert next(iter(source.items)).data == tmp_path / "a" / "1.png"


def test_parquet_manifest(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["1.png", "2.png", "3.png"], "label": [1.0, 0.0, None]})
    frame.to_parquet(tmp_path / "manifest.parquet")
    assert [row[2] for row in seen(open_source(tmp_path / "manifest.parquet"))] == ["1", "0", None]


def test_stray_csv_beside_class_folders_is_no_manifest(tmp_path: Path) -> None:
    csv(tmp_path, "name,score\nx,1\n")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"x")
    assert open_source(tmp_path).classes == ["a", "b"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", ".."])
def test_path_that_leaves_the_manifests_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="leaves its own folder in row 1"):
        open_source(csv(tmp_path, f"path,label\nok.png,a\n{path},b\n"))


def test_embedded_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "../x"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="leaves its own folder"):
        list(open_source(tmp_path).items)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not readable CSV"),
        ("picture,label\n1.png,a\n", "no column of image paths .its columns: picture, label."),
        ("path\n1.png\n", "has no label column"),
        ("path,label\n", "holds no images"),
        ("path,label\n,a\n", "has no path in row 0"),
        ("path,label,split\n1.png,a,trian\n", "splits that do not exist: row 0 has 'trian'"),
        ("path,label,split\n1.png,,train\n2.png,,test\n", "has no label in 1.png, 2.png"),
        ("path,label\n1.png,-1\n", "labels out of range in 1 rows: 1.png has '-1'"),
        ("path,label\n1.png,a\n2.png,b,c,d,e\n", "is not readable CSV"),
    ],
)
def test_broken_manifest_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(csv(tmp_path, text))


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 3, 1, -1, *[7] * 9], NAMES)
    with pytest.raises(
        UserError,
        match=r"out of range in 11 rows: train.parquet#1 has 3, train.parquet#3 has -1, .*and 6 more; .* 0 to 2",
    ):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [[[0], [1, 2]], [0.5, 1.0], ["bird", "cat"]])
def test_what_is_no_label_is_refused(tmp_path: Path, labels: list[Any]) -> None:
    hugging_face(tmp_path / "train.parquet", labels, NAMES)
    with pytest.raises(UserError, match=r"labels out of range in [12] rows"):
        open_source(tmp_path)


def test_different_class_names_are_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0], NAMES)
    hugging_face(tmp_path / "test.parquet", [0], NAMES[::-1])
    with pytest.raises(UserError, match="have different class names"):
        open_source(tmp_path)


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


@pytest.mark.parametrize("name", ["images.zip", "images.xlsx", "images"])
def test_unknown_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"is no dataset: ingest.source takes class folders"):
        open_source(tmp_path / name)


def slices(source: Source) -> list[tuple[str, ...]]:
    return [item.slices for item in source.items]


def test_columns_of_a_csv_manifest_are_kept_as_text(tmp_path: Path) -> None:
    csv(tmp_path, "path,label,Camera,lens\n1.png,a, x ,7\n2.png,b,,07\n3.png,a,NA,7\n")
    assert slices(open_source(tmp_path, ["Camera", "lens"])) == [("x", "7"), ("none", "07"), ("NA", "7")]
    assert slices(open_source(tmp_path)) == [(), (), ()]


def test_columns_of_a_parquet_manifest_are_kept_as_text(tmp_path: Path) -> None:
    table = {"path": ["1.png", "2.png"], "label": ["a", "b"], "year": [2020, None], "ok": [True, None]}
    pq.write_table(pa.table(table | {"f": [0.5, float("nan")]}), tmp_path / "m.parquet")
    assert slices(open_source(tmp_path, ["year", "ok", "f"])) == [("2020", "True", "0.5"), ("none", "none", "none")]


def test_columns_of_hugging_face_files_are_kept_and_unlabeled_ones_need_none(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 1], NAMES, **{"camera.model": ["x", None], "site": [3, 4]})
    hugging_face(tmp_path / "unlabeled.parquet", None)
    source = open_source(tmp_path, ["site", "camera.model"])
    assert slices(source) == [("3", "x"), ("4", "none"), ("none", "none"), ("none", "none")]
    assert slices(open_source(tmp_path, ["label"]))[:2] == [("0",), ("1",)]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            ["site", "camera"],
            "train.parquet has no column 'camera', which ingest.slices names .its columns: image, label",
        ),
        (["image"], "train.parquet has struct.* in its column 'image'"),
        (["tags"], "train.parquet has list.* in its column 'tags'"),
        (["number"], "has 101 values in the column 'number', .*more than 100 slices"),
    ],
)
def test_a_column_that_can_t_slice_is_refused(tmp_path: Path, wanted: list[str], sentence: str) -> None:
    labels = [i % 3 for i in range(101)]
    more = {"site": labels, "tags": [[i] for i in labels], "number": list(range(101))}
    hugging_face(tmp_path / "train.parquet", labels, NAMES, **more)
    with pytest.raises(UserError, match=sentence) as caught:
        open_source(tmp_path, wanted)
    assert "\n" not in str(caught.value)


def test_class_folders_have_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ingest.slices names columns .camera., and .* is a folder of images"):
        open_source(tmp_path, ["camera"])
