from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import NAMES, csv, hugging_face, rows_of


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 3, 1, -1, *[7] * 9], NAMES)
    with pytest.raises(
        UserError,
        match=r"out of range in 11 rows: train.parquet#1 has 3, train.parquet#3 has -1, .*and 6 more; .* 0 to 2",
    ):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["bird", "cat"]])
def test_what_is_no_label_is_refused(tmp_path: Path, labels: list[Any]) -> None:
    hugging_face(tmp_path / "train.parquet", labels, NAMES)
    with pytest.raises(UserError, match=r"labels out of range in [12] rows"):
        open_source(tmp_path)


def test_labels_below_zero_without_names_of_classes_have_no_range(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [-5, -5])
    with pytest.raises(UserError, match=r"train.parquet#0 has -5, .*; labels are one whole number from 0 or one name "):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [[0, 1], ["caf\u00e9", "cafe\u0301"]])
def test_two_spellings_of_one_class_are_refused_in_parquet(tmp_path: Path, labels: list[Any]) -> None:
    file = hugging_face(tmp_path / "a.parquet", labels, ["cafe\u0301", "caf\u00e9"] if 0 in labels else None)
    with pytest.raises(UserError, match=r"two classes that look alike, 'caf.*' and 'caf.*', two spellings of caf"):
        open_source(file)


def test_two_spellings_of_one_class_are_refused_in_csv(tmp_path: Path) -> None:
    file = csv(tmp_path, "path,label\n1.png,caf\u00e9\n2.png,cafe\u0301\n")
    with pytest.raises(UserError, match=r"labels.csv has two classes that look alike, 'cafe\\u0301' and 'caf\\xe9', "):
        open_source(file)


@pytest.mark.parametrize("names", [["cat", "cat"], ["cat", "cat "], ["big cat", "big  cat"], ["cat", "c\u200bat"]])
def test_two_classes_that_differ_in_nothing_that_is_seen_are_refused(tmp_path: Path, names: list[str]) -> None:
    file = hugging_face(tmp_path / "a.parquet", [0, 1], names)
    with pytest.raises(UserError, match=r"two classes that look alike, '.*' and '.*', two spellings of (big )?cat in"):
        open_source(file)


@pytest.mark.parametrize("name", ["cat\ndog", "\x1b[2Jcat", "\ud800", "\xe9" * 251, "\u200b"])
def test_a_class_that_is_no_line_of_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"a.parquet has the class '.*\\.*', which is no line of 1 to 250 letters"):
        open_source(hugging_face(tmp_path / "a.parquet", [0, 1], [name, "dog"]))


def test_a_sentence_does_not_hold_a_whole_book(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "a.parquet", ["x" * 9999, "y"], NAMES)
    with pytest.raises(UserError, match=r"out of range in 2 rows: a.parquet#0 has 'xxxx") as error:
        open_source(file)
    assert len(str(error.value)) < 1000


def test_dates_as_labels_are_shown_as_dates(tmp_path: Path) -> None:
    file = hugging_face(tmp_path / "a.parquet", [date(2024, 5, 1)] * 2, NAMES)
    with pytest.raises(UserError, match=r"out of range in 2 rows: a.parquet#0 has '2024-05-01', "):
        open_source(file)


def test_different_class_names_are_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0], NAMES)
    hugging_face(tmp_path / "test.parquet", [0], NAMES[::-1])
    with pytest.raises(UserError, match="have different class names"):
        open_source(tmp_path)


def test_whole_numbers_with_a_point_are_the_whole_numbers(tmp_path: Path) -> None:
    csv(tmp_path, "path,label\na.png,1.0\nb.png,2\nc.png,1\nd.png,10.00\n")
    source = open_source(tmp_path)
    assert source.classes == ["1", "2", "10"]
    assert [label for _, _, label in rows_of(source)] == ["1", "2", "1", "10"]


@pytest.mark.parametrize("label", ["0.73", "-1", "-1.0", ".5", "1.5e-3"])
def test_a_number_that_counts_nothing_is_no_class(tmp_path: Path, label: str) -> None:
    csv(tmp_path, f"path,label\na.png,cat\nb.png,{label}\n")
    with pytest.raises(UserError, match=r"labels out of range in 1 rows: b\.png has "):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("cat,dog", "cat", "owl"), "labels such as 'cat,dog' look like several at once"),
        (("cat;dog", "dog;cat"), "'cat;dog', 'dog;cat'"),
        (("tench, Tinca tinca", "goldfish, Carassius auratus"), None),
    ],
)
def test_several_labels_in_one_are_doubted(tmp_path: Path, labels: tuple[str, ...], named: str | None) -> None:
    csv(tmp_path, "path,label\n" + "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels)))
    doubts = open_source(tmp_path).doubts
    assert len(doubts) == bool(named)
    assert not named or named in doubts[0]
