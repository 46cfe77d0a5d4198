"""What tables of images have in common: columns of labels, splits and columns to keep, and rows with names."""

import math
import os.path
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reflux.components.core.contract import MISSING
from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.files import leads_out
from reflux.components.stages.ingest import slices as slicing
from reflux.components.stages.ingest.formats.labels import resolve, whole
from reflux.components.stages.ingest.items import Item, Source, Table
from reflux.components.stages.ingest.splits import split_of, split_of_file

PATH_COLUMNS = ("path", "image_path", "file_path", "filepath", "file_name", "filename", "file", "image")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "fine_label")
_SPLIT_COLUMNS = ("split", "subset", "set")
_SHOWN = 5
_LONGEST_PATH = 4096  # that Linux takes


def source(path: Path, tables: list[Table], kept: Mapping[str, str]) -> Source:
    """Combine the tables of a file or folder to one dataset.

    Raises:
        UserError: labels or slices do not fit together.
    """
    classes, labels = resolve(tables)
    values = [{word for table in tables for word in table.slices[column]} for column in range(len(kept))]
    slicing.refuse_many(path, kept, values)
    return Source(classes, sum(len(table.splits) for table in tables), _Items(tables, labels), [])


def columns_of(
    file: Path, name: str, cells: Mapping[str, list[Any]], columns: Sequence[str], rows: int, kept: Mapping[str, str]
) -> tuple[list[Any] | None, list[str | None], list[list[str]]]:
    """Labels, splits and columns to keep of a table.

    Args:
        file: the table's.
        name: its name relative to the dataset.
        cells: what the columns hold that :func:`used` lists.
        columns: the names of all.
        rows: their number.
        kept: the columns to keep, with the params that name them.

    Raises:
        UserError: a split does not exist, or a column to keep is missing.
    """
    label_column, split_column = first(_LABEL_COLUMNS, columns), first(_SPLIT_COLUMNS, columns)
    filled = {column: [None if _is_empty(value) else value for value in values] for column, values in cells.items()}
    labels = filled[label_column] if label_column else None
    splits = _splits(file, name, filled[split_column] if split_column else [], rows)
    if any(split != "unlabeled" for split in splits):
        slicing.refuse_missing(file, kept, columns)
    words = [_words(filled.get(wanted, [None] * rows)) for wanted in kept]
    return labels, splits, words


def used(columns: Sequence[str], kept: Mapping[str, str], *more: str) -> list[str]:
    """The columns of a table that are read: of labels and splits, those to keep, and ``more``."""
    found = (first(_LABEL_COLUMNS, columns), first(_SPLIT_COLUMNS, columns), *more)
    return list(dict.fromkeys([name for name in found if name] + [name for name in kept if name in columns]))


def label_column(columns: Sequence[str]) -> str | None:
    """The column of labels."""
    return first(_LABEL_COLUMNS, columns)


def first(wanted: tuple[str, ...], columns: Sequence[str]) -> str | None:
    """The column with the first of the wanted names that there is, in any case."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def inside(file: Path, row: int, value: Any) -> str:
    """Return a table's path to an image, if it stays in the table's folder.

    Raises:
        UserError: there is no path, or it leaves the folder.
    """
    if _is_empty(value):
        raise UserError(f"{file} has no path in {row_of(file, row)}: fill it in or delete the row.")
    if len(str(value)) > _LONGEST_PATH:
        raise UserError(f"{file} has a path of {len(str(value)):,} letters in {row_of(file, row)}: no file has one.")
    path = os.path.normpath(str(value))
    if "\0" in path:
        raise UserError(f"{file} has the path {value!r} in {row_of(file, row)}, with a zero byte: take that out.")
    if os.path.isabs(path) or path.split(os.sep)[0] == "..":
        raise UserError(
            f"{file} leaves its own folder with {value} in {row_of(file, row)}: write paths relative to the manifest, "
            "to files next to it or below it."
        )
    if leads_out(file.parent / path, file.parent):
        raise UserError(f"{file} names {value}, which a link leads out of {file.parent}: copy the file there.")
    return path


def row_of(file: Path, index: int) -> str:
    """The number of a table's row in words, from 1 as in a spreadsheet."""
    return f"row {index + 2} (the header is row 1)" if _has_header(file) else f"row {index + 1}"


def _has_header(file: Path) -> bool:
    return file.suffix.lower() == ".csv"


def relative(file: Path, path: Path) -> str:
    """A file's name in the dataset at ``path``, which may be the file itself."""
    return file.relative_to(path.parent if path.is_file() else path).as_posix()


@dataclass(frozen=True)
class _Items:
    tables: list[Table]
    labels: list[list[int]]

    def __iter__(self) -> Iterator[Item]:
        for table, labels in zip(self.tables, self.labels, strict=True):
            for index, (data, label) in enumerate(zip(table.images(), labels, strict=True)):
                split = table.splits[index] or ("unlabeled" if label == UNLABELED else None)
                words = tuple(column[index] for column in table.slices)
                yield Item(table.row(index), split, label, data, words)


def _is_empty(value: Any) -> bool:
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def _words(cells: Iterable[Any]) -> list[str]:
    """A column's cells as text; an empty one, None or blank, is a slice of its own."""
    known: dict[str, str] = {}  # one text for all equal cells: a dataset may have millions
    texts = []
    for cell in cells:
        word = MISSING if cell is None else str(whole(cell)).strip() or MISSING
        texts.append(known.setdefault(word, word))
    return texts


def _splits(file: Path, name: str, words: list[Any], rows: int) -> list[str | None]:
    whole = split_of_file(file.stem) or split_of_file(Path(name).parent.name)
    if not words:
        return [whole] * rows
    splits = [split_of(str(word)) if word is not None else whole for word in words]
    strange = [i for i, (word, split) in enumerate(zip(words, splits, strict=True)) if word is not None and not split]
    if strange:
        more = f" and {len(strange) - 1:,} more do" if len(strange) > 1 else ""
        raise UserError(
            f"{file} names a split that does not exist, {reprlib.repr(words[strange[0]])} in "
            f"{row_of(file, strange[0])}{more}: use train, val, test, unlabeled."
        )
    return splits
