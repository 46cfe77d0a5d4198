"""The columns of a dataset that its images keep: of ``ingest.slices``, ``ingest.group`` and ``pretrain.tasks``."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from reflux.components.core.contract import SLICE
from reflux.components.core.errors import UserError, listed

# With more, a slice of the test split holds too few images.
_MAX_VALUES = 100
SLICES, GROUP, TASKS = "ingest.slices", "ingest.group", "pretrain.tasks"  # the params that name columns
_EMPTY = {SLICES: "[]", GROUP: "null", TASKS: "{}"}
_SHOWN = 3


def columns_of(slices: Sequence[str]) -> list[str]:
    """The manifest's columns for the given columns of the source."""
    return [f"{SLICE}{name}" for name in slices]


def refuse_any(file: object, kept: Mapping[str, str]) -> None:
    """Stop when a dataset without columns is to have some.

    Raises:
        UserError: there are ``kept`` ones, by name with the param that names them.
    """
    for param in kept.values():
        names = listed([name for name, by in kept.items() if by == param], _SHOWN)
        raise UserError(
            f"{param} names columns ({names}), and {file} is a folder of images, which has none: list the images in a "
            f"CSV or Parquet manifest with these columns, or set {param} to {_EMPTY[param]}."
        )


def refuse_missing(file: object, kept: Mapping[str, str], columns: Sequence[str]) -> None:
    """Stop when a table lacks a column.

    Raises:
        UserError: it does.
    """
    for name, param in kept.items():
        if name not in columns:
            raise UserError(
                f"{file} has no column {name!r}, which {param} names (its columns: {listed(columns, 10)}): "
                f"fix the name in {param}, or add the column."
            )


def refuse_nested(file: object, wanted: Sequence[str], kept: Mapping[str, str], schema: pa.Schema) -> None:
    """Stop when a column of a Parquet file that is ``wanted``, or ``kept`` for a param, holds no plain values.

    Raises:
        UserError: it holds lists, structs or bytes.
    """
    for field in schema:
        kind = field.type
        if field.name in wanted and (
            pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        ):
            named = f", which {kept[field.name]} names" if field.name in kept else ""
            raise UserError(
                f"{file} has {kind} in its column {field.name!r}{named}: it must hold one word or number a row; "
                f"{'name another column, or add one' if named else 'export it so'}."
            )


def refuse_many(source: object, kept: Mapping[str, str], columns: Sequence[set[str]]) -> None:
    """Stop when one of the columns, given by their values, has too many for slices.

    Raises:
        UserError: one has more than 100.
    """
    for (name, param), values in zip(kept.items(), columns, strict=True):
        if param == SLICES and len(values) > _MAX_VALUES:
            raise UserError(
                f"{source} has {len(values):,} values in the column {name!r}, which ingest.slices names "
                f"({listed(sorted(values), _SHOWN)}): more than {_MAX_VALUES} slices are too small to judge a model "
                "by; group them in a column of fewer values."
            )
