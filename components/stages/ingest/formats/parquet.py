"""Parquet files: their footers say how much they hold before any of it is read, as a small file may hold a lot."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest import slices as slicing

MAX_ROWS = 20_000_000  # each takes memory for its label, its split and its path
_MAX_TEXT_BYTES = 4 * 2**30
_BATCH, _BATCH_BYTES = 256, 2**28
_DAMAGES = (pa.ArrowException, ValueError, OSError)  # that pyarrow raises


def files(path: Path) -> list[Path]:
    """The Parquet files that a path is or holds, at any depth, hidden ones aside."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = path.rglob("*.parquet")
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def schema(file: Path) -> pa.Schema:
    """The columns of a file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return pq.read_schema(file)
    except _DAMAGES as error:
        raise _unreadable(file, error) from None


def refuse_large(path: Path, of_it: Sequence[Path]) -> None:
    """Stop when the files of the dataset at ``path`` hold too many rows.

    Raises:
        UserError: they do, or one is damaged.
    """
    rows = 0
    for file in of_it:
        try:
            rows += pq.read_metadata(file).num_rows
        except _DAMAGES as error:
            raise _unreadable(file, error) from None
    if rows > MAX_ROWS:
        raise UserError(
            f"{path} has {rows:,} rows, more than the {MAX_ROWS:,} that Reflux takes: export a part of them."
        )


def columns(file: Path, wanted: Sequence[str], kept: Mapping[str, str]) -> tuple[dict[str, list[Any]], int]:
    """Read columns of words or numbers as Python objects, and count the rows.

    Args:
        file: with these columns.
        wanted: their names.
        kept: those that params name, with the param, for messages.

    Raises:
        UserError: the file is damaged, a column is there twice, holds no words or numbers, or too many of them.
    """
    refuse_doubled(file, wanted, schema(file).names)
    slicing.refuse_nested(file, wanted, kept, schema(file))
    try:
        # A text that many rows share is in memory once: its rows may be a few bytes in the file, and gigabytes without.
        with pq.ParquetFile(file, read_dictionary=list(wanted)) as parquet:
            facts = parquet.metadata
            _refuse_long(file, facts, wanted)
            table = parquet.read(columns=list(wanted))
        found = {name: [v for chunk in table[name].chunks for v in _objects(chunk)] for name in wanted}
    except _DAMAGES as error:
        raise _unreadable(file, error) from None
    for cells in found.values():
        _refuse_other_count(file, len(cells), facts.num_rows)
    return found, facts.num_rows


def values(file: Path, column: str) -> Iterator[Any]:
    """The values of a column, some rows at a time: a dataset may be larger than the memory.

    Raises:
        UserError: the file is damaged.
    """
    count = 0
    try:
        with pq.ParquetFile(file) as parquet:
            facts = parquet.metadata
            # As if all of a group's bytes were one value that each row of it has.
            largest = max(
                (_bytes(facts.row_group(group), [column]) for group in range(facts.num_row_groups)), default=0
            )
            rows = max(1, min(_BATCH, _BATCH_BYTES // max(1, largest)))
            for batch in parquet.iter_batches(batch_size=rows, columns=[column]):
                for scalar in batch.column(0):
                    yield scalar.as_py()
                    count += 1
    except _DAMAGES as error:
        raise _unreadable(file, error) from None
    _refuse_other_count(file, count, facts.num_rows)


def refuse_doubled(file: Path, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Stop when a column that is read is there twice.

    Raises:
        UserError: one is.
    """
    for name in wanted:
        if list(names).count(name) > 1:
            raise UserError(f"{file} has {list(names).count(name)} columns {name!r}: rename or delete all but one.")


def _refuse_long(file: Path, facts: pq.FileMetaData, wanted: Sequence[str]) -> None:
    size = sum(_bytes(facts.row_group(group), wanted) for group in range(facts.num_row_groups))
    if size > _MAX_TEXT_BYTES:
        raise UserError(
            f"{file} has {size / 1e9:,.1f} GB in its columns {', '.join(wanted)}, more than the "
            f"{_MAX_TEXT_BYTES / 1e9:,.1f} that Reflux reads: they must hold short words or numbers."
        )


def _bytes(group: pq.RowGroupMetaData, wanted: Sequence[str]) -> int:
    """The bytes of some columns of a group of rows, uncompressed."""
    parts = (group.column(number) for number in range(group.num_columns))
    own = tuple(f"{name}." for name in wanted)  # the fields of a struct
    return sum(part.total_uncompressed_size for part in parts if f"{part.path_in_schema}.".startswith(own))


def _objects(chunk: pa.Array) -> list[Any]:
    if not isinstance(chunk, pa.DictionaryArray):
        return chunk.to_pylist()
    known = chunk.dictionary.to_pylist()
    return [None if index is None else known[index] for index in chunk.indices.to_pylist()]


def _refuse_other_count(file: Path, count: int, rows: int) -> None:
    if count != rows:
        raise _unreadable(file, ValueError(f"{rows:,} rows in its footer, and {count:,} in a column"))


def _unreadable(file: Path, error: Exception) -> Exception:
    if isinstance(error, PermissionError):
        return error
    return UserError(f"{file} is not readable Parquet ({' '.join(str(error).split())}): export it again.")
