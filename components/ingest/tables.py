"""Tables of images: CSV or Parquet manifests with a path column, and Parquet that carries the images themselves."""

import json
import math
import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import UserError, listed
from components.ingest import slices as slicing
from components.ingest.items import FORMS, UNLABELED, Item, Source
from components.ingest.labels import Labels, resolve
from components.ingest.splits import split_of, split_of_file

_PATH_COLUMNS = ("path", "image_path", "file_path", "filepath", "file_name", "filename", "file", "image")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "fine_label")
_SPLIT_COLUMNS = ("split", "subset", "set")
_BATCH = 256
_SHOWN = 5


@dataclass(frozen=True)
class Table:
    """One file of a dataset, without its images.

    Attributes:
        file: where it is.
        name: how its rows are called in messages and in the manifest.
        images: the column that carries the images, or None for a manifest.
        paths: the manifest's paths, one a row.
        labels: as found, None where empty; None when there is no such column.
        splits: the split of each row, or None where the table does not say.
        names: class names in label order, if the table carries them.
        slices: of each column that ``ingest.slices`` names, the text of each row.
    """

    file: Path
    name: str
    images: str | None
    paths: list[str]
    labels: list[Any] | None
    splits: list[str | None]
    names: list[str] | None
    slices: list[list[str]]

    def row(self, index: int) -> str:
        """How a person finds a row."""
        return f"{self.name}#{index}" if self.images else (Path(self.name).parent / self.paths[index]).as_posix()


def found(folder: Path) -> bool:
    """Whether a folder is a dataset of tables, and not of class folders with a stray CSV file beside them."""
    return bool(_files(folder))


def read(path: Path, slices: Sequence[str] = ()) -> Source:
    """Read one table, or a folder of tables.

    Args:
        path: the file or folder.
        slices: the columns that each image's ``slices`` are taken from; unlabeled images may have none.

    Raises:
        UserError: a table is damaged, lacks a column, or has labels or slices that do not fit.
    """
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else _files(path)
    tables = [_table(file, file.relative_to(root).as_posix(), slices) for file in files]
    columns = [
        Labels(
            table.labels, table.splits, table.names, [table.row(i) for i in range(len(table.splits))], str(table.file)
        )
        for table in tables
    ]
    classes, labels = resolve(columns)
    count = sum(len(table.splits) for table in tables)
    if not count:
        raise UserError(f"{path} has no rows: ingest.source takes {FORMS}.")
    values = [{word for table in tables for word in table.slices[column]} for column in range(len(slices))]
    slicing.refuse_many(path, slices, values)
    return Source(classes, count, _Items(tables, labels), [])


@dataclass(frozen=True)
class _Items:
    tables: list[Table]
    labels: list[list[int]]

    def __iter__(self) -> Iterator[Item]:
        for table, labels in zip(self.tables, self.labels, strict=True):
            images = _embedded(table) if table.images else (table.file.parent / path for path in table.paths)
            for index, (data, label) in enumerate(zip(images, labels, strict=True)):
                split = table.splits[index] or ("unlabeled" if label == UNLABELED else None)
                words = tuple(column[index] for column in table.slices)
                yield Item(table.row(index), split, label, data, words)


def _files(folder: Path) -> list[Path]:
    parquet = [p for p in folder.rglob("*.parquet") if not any(q.startswith(".") for q in p.relative_to(folder).parts)]
    if parquet:
        return sorted(parquet)
    return sorted(p for p in folder.glob("*.csv") if _first(_PATH_COLUMNS, _header(p)[1]))


def _header(file: Path) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and its first line's cells."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        line = lines.readline().strip()
    delimiter = max(",;\t", key=line.count)
    return delimiter, [cell.strip().strip('"') for cell in line.split(delimiter)]


def _first(wanted: tuple[str, ...], columns: list[str]) -> str | None:
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _table(file: Path, name: str, slices: Sequence[str]) -> Table:
    match file.suffix.lower():
        case ".csv":
            return _manifest(file, name, _read_csv(file), slices)
        case ".parquet":
            return _parquet(file, name, slices)
        case kind:
            raise UserError(f"{file} is a {kind or 'nameless'} file, which is no dataset: ingest.source takes {FORMS}.")


def _read_csv(file: Path) -> pd.DataFrame:
    try:
        # As text and without guessing: "007" and "NA" are names of classes.
        return pd.read_csv(file, sep=_header(file)[0], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{file} is not readable CSV ({' '.join(str(error).split())}): save it as UTF-8 CSV.") from None


def _manifest(file: Path, name: str, frame: pd.DataFrame, slices: Sequence[str]) -> Table:
    columns = [str(column) for column in frame.columns]
    path_column = _first(_PATH_COLUMNS, columns)
    if not path_column:
        found_columns = listed(columns, 10) or "none"
        raise UserError(f"{file} has no column of image paths (its columns: {found_columns}): name one of them 'path'.")
    paths = [_inside(file, index, value) for index, value in enumerate(_cells(frame[path_column]))]
    label_column, split_column = _first(_LABEL_COLUMNS, columns), _first(_SPLIT_COLUMNS, columns)
    labels = _cells(frame[label_column]) if label_column else None
    words = _cells(frame[split_column]) if split_column else []
    splits = _splits(file, name, words, len(paths))
    return Table(file, name, None, paths, labels, splits, None, _slices(file, frame, columns, splits, slices))


def _slices(
    file: Path, table: Any, columns: list[str], splits: list[str | None], wanted: Sequence[str]
) -> list[list[str]]:
    if any(split != "unlabeled" for split in splits):
        slicing.refuse_missing(file, wanted, columns)
    return [slicing.words(_cells(table[name]) if name in columns else [None] * len(splits)) for name in wanted]


def _cells(column: Any) -> list[Any]:
    """The column's values as Python objects; what is empty is None."""
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column.tolist()
    return [None if _is_empty(value) else value for value in values]


def _is_empty(value: Any) -> bool:
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def _splits(file: Path, name: str, words: list[Any], rows: int) -> list[str | None]:
    whole = split_of_file(file.stem) or split_of_file(Path(name).parent.name)
    if not words:
        return [whole] * rows
    splits = [split_of(str(word)) if word is not None else whole for word in words]
    strange = [
        f"row {i} has {w!r}" for i, (w, s) in enumerate(zip(words, splits, strict=True)) if w is not None and not s
    ]
    if strange:
        raise UserError(
            f"{file} names splits that do not exist: {listed(strange, _SHOWN)}; use train, val, test, unlabeled."
        )
    return splits


def _inside(file: Path, row: int, value: Any) -> str:
    """A manifest's path, if it stays in the manifest's folder.

    Judged by the words of the path and not by where links lead: DVC may check out every image as a link to its cache.
    """
    if value is None:
        raise UserError(f"{file} has no path in row {row}: fill it in or delete the row.")
    path = os.path.normpath(str(value))
    if os.path.isabs(path) or path.split(os.sep)[0] == ".." or "\0" in path:
        raise UserError(
            f"{file} leaves its own folder in row {row} ({value}): write paths relative to the manifest, to files "
            "beside or below it."
        )
    return path


def _parquet(file: Path, name: str, slices: Sequence[str]) -> Table:
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            slicing.refuse_nested(file, slices, schema)
            images = _image_column(schema)
            if not images:
                return _manifest(file, name, parquet.read().to_pandas(), slices)
            label_column, split_column = _first(_LABEL_COLUMNS, schema.names), _first(_SPLIT_COLUMNS, schema.names)
            small = parquet.read(columns=[c for c in schema.names if c in (label_column, split_column, *slices)])
            rows = parquet.metadata.num_rows
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _damaged(file, error) from None
    words = _cells(small[split_column]) if split_column else []
    labels = _cells(small[label_column]) if label_column else None
    splits = _splits(file, name, words, rows)
    return Table(
        file,
        name,
        images,
        [],
        labels,
        splits,
        _names(schema, label_column),
        _slices(file, small, schema.names, splits, slices),
    )


def _image_column(schema: pa.Schema) -> str | None:
    """The first column that holds image files: a Hugging Face struct of bytes and path, or plain bytes."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(field.name)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(field.name)
    return None


def _names(schema: pa.Schema, label_column: str | None) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label_column]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names]


def _embedded(table: Table) -> Iterator[bytes | Path]:
    """The image files of a table, a batch of rows at a time: a dataset may be larger than the memory."""
    index = 0
    try:
        with pq.ParquetFile(table.file) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH, columns=[table.images]):
                for value in batch.column(0).to_pylist():
                    yield _file_of(table, index, value)
                    index += 1
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _damaged(table.file, error) from None


def _damaged(file: Path, error: Exception) -> Exception:
    if isinstance(error, PermissionError):
        return error
    return UserError(f"{file} is not readable Parquet ({' '.join(str(error).split())}): export it again.")


def _file_of(table: Table, row: int, value: Any) -> bytes | Path:
    if isinstance(value, dict):
        if value["bytes"] is None and value.get("path"):
            return table.file.parent / _inside(table.file, row, value["path"])
        value = value["bytes"]
    return value or b""
