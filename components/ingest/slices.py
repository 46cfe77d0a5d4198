"""The columns of a dataset by whose values accuracy is reported (``ingest.slices``)."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from components.core.contract import SLICE
from components.core.errors import UserError, listed
from components.ingest.labels import whole

# With more, a slice of the test split holds too few images.
_MAX_VALUES = 100
_MISSING = "none"
_SHOWN = 3


def columns_of(slices: Sequence[str]) -> list[str]:
    """The manifest's columns for the given columns of the source."""
    return [f"{SLICE}{name}" for name in slices]


def words(cells: Iterable[Any]) -> list[str]:
    """A column's cells as text; an empty one, None or blank, is a slice of its own."""
    known: dict[str, str] = {}  # one text for all equal cells: a dataset may have millions
    texts = []
    for cell in cells:
        word = _MISSING if cell is None else str(whole(cell)).strip() or _MISSING
        texts.append(known.setdefault(word, word))
    return texts


def refuse_missing(file: object, wanted: Sequence[str], columns: Sequence[str]) -> None:
    """Stop when a table lacks a column.

    Raises:
        UserError: it does.
    """
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UserError(
            f"{file} has no column {missing[0]!r}, which ingest.slices names (its columns: {listed(columns, 10)}): "
            "fix the name in ingest.slices, or add the column."
        )


def refuse_nested(file: object, wanted: Sequence[str], schema: pa.Schema) -> None:
    """Stop when a column of a Parquet file holds no plain values.

    Raises:
        UserError: it holds lists, structs or bytes.
    """
    for field in schema:
        kind = field.type
        if field.name in wanted and (
            pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        ):
            raise UserError(
                f"{file} has {kind} in its column {field.name!r}, which ingest.slices names: a slice is a word or a "
                "number; name another column, or add one."
            )


def refuse_many(source: object, slices: Sequence[str], columns: Sequence[set[str]]) -> None:
    """Stop when one of the columns, given by their values, has too many.

    Raises:
        UserError: one has more than 100.
    """
    for name, values in zip(slices, columns, strict=True):
        if len(values) > _MAX_VALUES:
            raise UserError(
                f"{source} has {len(values):,} values in the column {name!r}, which ingest.slices names "
                f"({listed(sorted(values), _SHOWN)}): more than {_MAX_VALUES} slices are too small to judge a model "
                "by; group them in a column of fewer values."
            )
