"""Manifests: CSV or Parquet with a column of paths to images and a column of labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest.formats import parquet, tables
from reflux.components.stages.ingest.formats.register import dataset_format
from reflux.components.stages.ingest.items import Source, Table

_MAX_CSV_BYTES = 2**30  # all of it is in memory several times
_LONGEST_HEADER = 2**20  # a file without an end of line would be read whole


def recognize(path: Path) -> bool:
    """Tell manifests from class folders with a stray CSV file next to them."""
    return bool(_files(path))


@dataset_format("manifest", "a CSV or Parquet manifest with a path and a label column", recognize)
def read(path: Path, kept: Mapping[str, str]) -> Source:
    """Read one manifest, or a folder of them.

    Raises:
        UserError: a manifest is damaged, lacks a column, or has labels or columns that do not fit.
    """
    files = _files(path)
    parquet.refuse_large(path, [file for file in files if file.suffix.lower() == ".parquet"])
    return tables.source(path, [_table(file, tables.relative(file, path), kept) for file in files], kept)


def parquet_table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    """Read a Parquet file, whose name relative to the dataset is ``name``, as a manifest.

    Raises:
        UserError: it is damaged, lacks a column, or has columns to keep that are no words or numbers.
    """
    columns = parquet.schema(file).names
    cells, _ = parquet.columns(file, _used(file, columns, kept), kept)
    return _manifest(file, name, cells, columns, kept)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".csv", ".parquet") else []
    with_paths = (p for p in path.glob("*.csv") if tables.first(tables.PATH_COLUMNS, _header(p)[1]))
    return parquet.files(path) or sorted(with_paths)


def _header(file: Path) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and the cells of its first line."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        line = lines.readline(_LONGEST_HEADER).strip()
    delimiter = max(",;\t", key=line.count)
    return delimiter, [cell.strip().strip('"') for cell in line.split(delimiter)]


def _table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    if file.suffix.lower() == ".parquet":
        return parquet_table(file, name, kept)
    if (size := file.stat().st_size) > _MAX_CSV_BYTES:
        raise UserError(
            f"{file} has {size / 1e9:,.1f} GB, more than the {_MAX_CSV_BYTES / 1e9:,.1f} that Reflux reads of a CSV "
            "file: take out columns, or export a part of the rows."
        )
    try:
        # As text and without guessing: "007" and "NA" are names of classes.
        frame = pd.read_csv(file, sep=_header(file)[0], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{file} is not readable CSV ({' '.join(str(error).split())}): save it as UTF-8 CSV.") from None
    columns = [str(column) for column in frame.columns]
    wanted = _used(file, columns, kept)
    parquet.refuse_doubled(file, wanted, _header(file)[1])  # pandas gives the second another name
    return _manifest(file, name, {column: frame[column].tolist() for column in wanted}, columns, kept)


def _used(file: Path, columns: list[str], kept: Mapping[str, str]) -> list[str]:
    """The columns that are read of a manifest.

    Raises:
        UserError: none holds paths.
    """
    path_column = tables.first(tables.PATH_COLUMNS, columns)
    if not path_column:
        present = listed(columns, 10) or "none"
        raise UserError(f"{file} has no column of image paths (its columns: {present}): name one of them 'path'.")
    return tables.used(columns, kept, path_column)


def _manifest(
    file: Path, name: str, cells: Mapping[str, list[Any]], columns: list[str], kept: Mapping[str, str]
) -> Table:
    path_column = str(tables.first(tables.PATH_COLUMNS, columns))
    paths = [tables.inside(file, index, value) for index, value in enumerate(cells[path_column])]
    labels, splits, words = tables.columns_of(file, name, cells, columns, len(paths), kept)

    def row(index: int) -> str:
        return (Path(name).parent / paths[index]).as_posix()

    return Table(file, lambda: (file.parent / path for path in paths), row, labels, splits, None, words)
