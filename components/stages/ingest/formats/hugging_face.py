"""Parquet that carries the images themselves, in the layout of Hugging Face's datasets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.stages.ingest import slices as slicing
from reflux.components.stages.ingest.formats import tables
from reflux.components.stages.ingest.formats.manifest import parquet_table
from reflux.components.stages.ingest.formats.register import dataset_format
from reflux.components.stages.ingest.items import Source, Table

_BATCH = 256


def recognize(path: Path) -> bool:
    """Look for a column of images in the Parquet files."""
    return any(image_column(file) for file in tables.parquet_files(path))


@dataset_format("hugging-face", "Parquet in the Hugging Face layout", recognize)
def read(path: Path, kept: Mapping[str, str]) -> Source:
    """Read one file, or a folder of them; files without a column of images are manifests.

    Raises:
        UserError: a file is damaged, or has labels or columns that do not fit.
    """
    files = tables.parquet_files(path)
    return tables.source(path, [_table(file, tables.relative(file, path), kept) for file in files], kept)


def image_column(file: Path) -> str | None:
    """The first column that holds image files: a struct of bytes and path, or plain bytes."""
    try:
        schema = pq.read_schema(file)
    except PermissionError:
        raise
    except (pa.ArrowException, ValueError, OSError):
        return None  # what reads it as a manifest says what is wrong
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(field.name)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(field.name)
    return None


def _table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    column = image_column(file)
    if column is None:
        return parquet_table(file, name, kept)
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            slicing.refuse_nested(file, kept, schema)
            label_column, split_column = tables.label_and_split(schema.names)
            small = parquet.read(columns=[c for c in schema.names if c in (label_column, split_column, *kept)])
            rows = parquet.metadata.num_rows
    except (pa.ArrowException, ValueError, OSError) as error:
        raise tables.unreadable_parquet(file, error) from None
    labels, splits, words = tables.columns_of(file, name, small, schema.names, rows, kept)
    names = _names(schema, label_column)
    return Table(file, lambda: _images(file, column), lambda index: f"{name}#{index}", labels, splits, names, words)


def _names(schema: pa.Schema, label_column: str | None) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label_column]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names]


def _images(file: Path, column: str) -> Iterator[bytes | Path]:
    """The image files of a table, a batch of rows at a time: a dataset may be larger than the memory."""
    index = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _image(file, index, value)
                    index += 1
    except (pa.ArrowException, ValueError, OSError) as error:
        raise tables.unreadable_parquet(file, error) from None


def _image(file: Path, row: int, value: Any) -> bytes | Path:
    if isinstance(value, dict):
        if value["bytes"] is None and value.get("path"):
            return file.parent / tables.inside(file, row, value["path"])
        value = value["bytes"]
    return value or b""
