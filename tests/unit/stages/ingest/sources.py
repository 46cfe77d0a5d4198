"""Datasets of each format, written for tests of their readers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.stages.ingest.items import Source

NAMES = ["cat", "dog", "owl"]


def tree(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


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


def csv(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8-sig")
    return file


def rows_of(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(i.path, i.split, source.classes[i.label] if i.label >= 0 else None) for i in source.items]


def slices_of(source: Source) -> list[tuple[str, ...]]:
    return [item.slices for item in source.items]
