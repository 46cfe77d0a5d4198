from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import csv, rows_of, slices_of


def test_csv_manifest(tmp_path: Path) -> None:
    csv(
        tmp_path,
        "File_Name;Class;Split\na/1.png;NA;train\nb/2.png;007;valid\nb/./3.png;7;\nc.png;;unlabeled\nd.png;;\n",
    )
    source = open_source(tmp_path)
    assert source.classes == ["007", "7", "NA"]
    assert rows_of(source) == [
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
    assert [row[2] for row in rows_of(open_source(tmp_path / "manifest.parquet"))] == ["1", "0", None]


def test_stray_csv_next_to_class_folders_is_no_manifest(tmp_path: Path) -> None:
    csv(tmp_path, "name,score\nx,1\n")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"x")
    assert open_source(tmp_path).classes == ["a", "b"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", ".."])
def test_path_that_leaves_the_manifests_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"leaves its own folder with .* in row 3 \(the header is row 1\)"):
        open_source(csv(tmp_path, f"path,label\nok.png,a\n{path},b\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not readable CSV"),
        ("picture,label\n1.png,a\n", "no column of image paths .its columns: picture, label."),
        ("path\n1.png\n", "has no label column"),
        ("path,label\n", "holds no images"),
        ("path,label\n,a\n", r"has no path in row 2 \(the header is row 1\): fill"),
        (
            "path,label,split\n1.png,a,trian\n",
            r"a split that does not exist, 'trian' in row 2 \(the header is row 1\): use",
        ),
        ("path,label,label\n1.png,a,b\n", "has 2 columns 'label': rename or delete all but one"),
        ("path,label,split\n1.png,,train\n2.png,,test\n", "has no label in 1.png, 2.png"),
        ("path,label\n1.png,-1\n", "labels out of range in 1 rows: 1.png has '-1'"),
        ('path,label\n1.png,a\n"2\0.png",b\n', r"has the path '2\\x00.png' in row 3 .*, with a zero byte: take"),
        (f"path,label\n{'x' * 5000},a\n", r"has a path of 5,000 letters in row 2 \(the header is row 1\): no file"),
        ("path,label\n1.png,a\n2.png,b,c,d,e\n", "is not readable CSV"),
    ],
)
def test_broken_manifest_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(csv(tmp_path, text))


def test_an_endless_manifest_is_not_read(tmp_path: Path) -> None:
    for file in (csv(tmp_path, "path,label\n1.png,a\n2.png,b\n"), tmp_path / "stray.csv"):
        with file.open("ab") as end:
            end.truncate(30 * 2**30)
    with pytest.raises(UserError, match=r"labels.csv has 32.2 GB, more than the 1.1 that Reflux reads of a CSV file"):
        open_source(tmp_path)


def test_columns_of_a_csv_manifest_are_kept_as_text(tmp_path: Path) -> None:
    csv(tmp_path, "path,label,Camera,lens\n1.png,a, x ,7\n2.png,b,,07\n3.png,a,NA,7\n")
    assert slices_of(open_source(tmp_path, ["Camera", "lens"])) == [("x", "7"), ("none", "07"), ("NA", "7")]
    assert slices_of(open_source(tmp_path)) == [(), (), ()]


def test_columns_of_a_parquet_manifest_are_kept_as_text(tmp_path: Path) -> None:
    table = {"path": ["1.png", "2.png"], "label": ["a", "b"], "year": [2020, None], "ok": [True, None]}
    pq.write_table(pa.table(table | {"f": [0.5, float("nan")]}), tmp_path / "m.parquet")
    assert slices_of(open_source(tmp_path, ["year", "ok", "f"])) == [("2020", "True", "0.5"), ("none", "none", "none")]
