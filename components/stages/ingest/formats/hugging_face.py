"""Parquet that carries the images themselves, in the layout of Hugging Face's datasets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.formats import parquet, tables
from reflux.components.stages.ingest.formats.manifest import parquet_table
from reflux.components.stages.ingest.formats.register import dataset_format
from reflux.components.stages.ingest.items import Source, Table


def recognize(path: Path) -> bool:
    """Look for a column of images in the Parquet files."""
    return any(image_column(file) for file in parquet.files(path))


@dataset_format("hugging-face", "Parquet in the Hugging Face layout", recognize)
def read(path: Path, kept: Mapping[str, str]) -> Source:
    """Read one file, or a folder of them; files without a column of images are manifests.

    Raises:
        UserError: a file is damaged, or has labels or columns that do not fit.
    """
    files = parquet.files(path)
    parquet.refuse_large(path, files)
    return tables.source(path, [_table(file, tables.relative(file, path), kept) for file in files], kept)


def image_column(file: Path) -> str | None:
    """The first column that holds image files: a struct of bytes and path, or plain bytes."""
    try:
        schema = parquet.schema(file)
    except UserError:
        return None  # what reads it as a manifest says what is wrong
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(field.name)
    return None


def _table(file: Path, name: str, kept: Mapping[str, str]) -> Table:
    column = image_column(file)
    if column is None:
        return parquet_table(file, name, kept)
    schema = parquet.schema(file)
    parquet.refuse_doubled(file, [column], schema.names)
    cells, rows = parquet.columns(file, tables.used(schema.names, kept), kept)
    labels, splits, words = tables.columns_of(file, name, cells, schema.names, rows, kept)
    names = _names(schema, tables.label_column(schema.names))
    return Table(file, lambda: _images(file, column), lambda index: f"{name}#{index}", labels, splits, names, words)


def _names(schema: pa.Schema, label_column: str | None) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label_column]["names"]]
    except (KeyError, ValueError, TypeError):
        return None


def _images(file: Path, column: str) -> Iterator[bytes | Path]:
    return (_image(file, row, value) for row, value in enumerate(parquet.values(file, column)))


def _image(file: Path, row: int, value: Any) -> bytes | Path:
    if isinstance(value, dict):
        if value["bytes"] is None and value.get("path"):
            return file.parent / tables.inside(file, row, value["path"])
        value = value["bytes"]
    return value or b""
