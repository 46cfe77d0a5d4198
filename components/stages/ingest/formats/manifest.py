"""Manifests: CSV or Parquet with a column of paths to images and a column of labels."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest import slices as slicing
from reflux.components.stages.ingest.formats import tables
from reflux.components.stages.ingest.formats.register import dataset_format
from reflux.components.stages.ingest.items import Source, Table


def recognize(path: Path) -> bool:
    """Tell manifests from class folders with a stray CSV file next to them."""
    return bool(_files(path))


@dataset_format("manifest", "a CSV or Parquet manifest with a path and a label column", recognize)
def read(path: Path, kept: Mapping[str, str]) -> Source:
    """Read one manifest, or a folder of them.

    Raises:
        UserError: a manifest is damaged, lacks a column, or has labels or columns that do not fit.
    """
    return tables.source(path, [_table(file, tables.relative(file, path), kept) for file in _files(path)], kept)


def parquet_table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    """Read a Parquet file, whose name relative to the dataset is ``name``, as a manifest.

    Raises:
        UserError: it is damaged, lacks a column, or has columns to keep that are no words or numbers.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            slicing.refuse_nested(file, kept, parquet.schema_arrow)
            frame = parquet.read().to_pandas()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise tables.unreadable_parquet(file, error) from None
    return _manifest(file, name, frame, kept)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".csv", ".parquet") else []
    with_paths = (p for p in path.glob("*.csv") if tables.first(tables.PATH_COLUMNS, _header(p)[1]))
    return tables.parquet_files(path) or sorted(with_paths)


def _header(file: Path) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and the cells of its first line."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        line = lines.readline().strip()
    delimiter = max(",;\t", key=line.count)
    return delimiter, [cell.strip().strip('"') for cell in line.split(delimiter)]


def _table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    if file.suffix.lower() == ".parquet":
        return parquet_table(file, name, kept)
    try:
        # As text and without guessing: "007" and "NA" are names of classes.
        frame = pd.read_csv(file, sep=_header(file)[0], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{file} is not readable CSV ({' '.join(str(error).split())}): save it as UTF-8 CSV.") from None
    return _manifest(file, name, frame, kept)


def _manifest(file: Path, name: str, frame: pd.DataFrame, kept: Mapping[str, str]) -> Table:
    columns = [str(column) for column in frame.columns]
    path_column = tables.first(tables.PATH_COLUMNS, columns)
    if not path_column:
        present = listed(columns, 10) or "none"
        raise UserError(f"{file} has no column of image paths (its columns: {present}): name one of them 'path'.")
    paths = [tables.inside(file, index, value) for index, value in enumerate(tables.cells(frame[path_column]))]
    labels, splits, words = tables.columns_of(file, name, frame, columns, len(paths), kept)

    def row(index: int) -> str:
        return (Path(name).parent / paths[index]).as_posix()

    return Table(file, lambda: (file.parent / path for path in paths), row, labels, splits, None, words)
