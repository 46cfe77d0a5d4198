"""Parquet files that hold more than they seem to, or not what they should."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.formats.parquet import MAX_ROWS
from reflux.components.stages.ingest.source import open_source

pytestmark = pytest.mark.timeout(60)


def repeated(value: str | bytes, rows: int) -> pa.Array:
    """One value in all rows, which takes a few bytes of a file."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([value]))


def written(file: Path, *columns: tuple[str, Any]) -> Path:
    table = pa.Table.from_arrays([values for _, values in columns], [name for name, _ in columns])
    pq.write_table(table, file, compression="zstd", store_schema=False)
    return file


def images(values: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([values, pa.nulls(len(values), pa.string())], ["bytes", "path"])


@pytest.mark.parametrize("column", ["path", "image"])
def test_millions_of_rows_in_a_small_file_are_refused_before_they_are_read(tmp_path: Path, column: str) -> None:
    rows = MAX_ROWS // 2 + 1
    value = repeated(b"x", rows) if column == "image" else repeated("1.png", rows)
    for name in ("a", "b"):
        file = written(tmp_path / f"{name}.parquet", (column, value), ("label", repeated("cat", rows)))
        assert file.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"has 20,000,002 rows, more than the 20,000,000 that Reflux takes: export a"):
        open_source(tmp_path)


def test_a_long_text_that_all_rows_share_is_in_memory_once(tmp_path: Path) -> None:
    names, long = pa.array([f"{row}.png" for row in range(500)]), "x" * 5_000_000
    file = written(
        tmp_path / "a.parquet", ("path", names), ("label", repeated("cat", 500)), ("site", repeated(long, 500))
    )
    assert file.stat().st_size < 20_000
    source = open_source(file, ["site"])
    assert {item.slices for item in source.items} == {(long,)}
    assert pa.default_memory_pool().max_memory() < 600e6


def test_a_large_image_that_all_rows_share_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    large = repeated(bytes(5_000_000), 300)
    for number, column in enumerate((images(large), large)):
        file = written(tmp_path / f"{number}.parquet", ("image", column), ("label", pa.array(["cat", "dog"] * 150)))
        assert file.stat().st_size < 10_000
        assert (
            sum(len(item.data) == 5_000_000 for item in open_source(file).items if isinstance(item.data, bytes)) == 300
        )
    assert pa.default_memory_pool().max_memory() < 1000e6


@pytest.mark.parametrize("column", ["path", "image"])
@pytest.mark.parametrize("labels", [[["a"], ["b", "c"]], [{"name": "a"}, {"name": "b"}], [[0], [1]]])
def test_lists_as_labels_are_a_sentence(tmp_path: Path, column: str, labels: list[Any]) -> None:
    value = pa.array(["1.png", "2.png"]) if column == "path" else images(pa.array([b"1", b"2"]))
    file = written(tmp_path / "a.parquet", (column, value), ("label", pa.array(labels)))
    with pytest.raises(
        UserError, match=r"has (list|struct)<.*> in its column 'label': it must hold one word or number a"
    ):
        open_source(file)


@pytest.mark.parametrize("doubled", ["label", "path", "image", "split", "site"])
def test_a_doubled_column_is_a_sentence(tmp_path: Path, doubled: str) -> None:
    columns = [("label", pa.array(["a", "b"])), ("split", pa.array(["train", "val"])), ("site", pa.array(["x", "y"]))]
    if doubled == "image":
        columns.append(("image", images(pa.array([b"1", b"2"]))))
    else:
        columns.append(("path", pa.array(["1.png", "2.png"])))
    columns.append(next(column for column in columns if column[0] == doubled))
    with pytest.raises(UserError, match=rf"a.parquet has 2 columns '{doubled}': rename or delete all but one"):
        open_source(written(tmp_path / "a.parquet", *columns), ["site"])


def test_a_column_that_is_not_read_may_be_there_twice(tmp_path: Path) -> None:
    words = pa.array(["a.png", "b.png"])
    file = written(tmp_path / "a.parquet", ("path", words), ("label", words), ("note", words), ("note", words))
    assert open_source(file).classes == ["a.png", "b.png"]
