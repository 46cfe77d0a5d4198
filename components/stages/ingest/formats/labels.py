"""Class names in label order, from the labels that tables carry."""

import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest.items import Table

_SHOWN = 5
_WHOLE = re.compile(r"-?\d+\.0+")
_NO_CLASS = re.compile(r"-\d+|[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)  # a number that counts nothing: -1, 0.73
_NO_LETTERS = ("Cc", "Cs")  # Unicode's control characters, and the halves of a character
_LONGEST = 250  # a folder can't have a longer name, and an MLflow tag of several classes hardly
_SEPARATORS = re.compile(r"[,;|]")


def resolve(tables: list[Table]) -> tuple[list[str], list[list[int]]]:
    """Turn all tables' labels into indices of one list of classes.

    Rows of the split ``unlabeled`` get no label, whatever the table says. A row without a label and without a split
    is unlabeled too.

    Returns:
        The class names, and for each table the label of each row.

    Raises:
        UserError: a labeled row has no label, or one that no class name belongs to.
    """
    cells = [_labeled(table) for table in tables]
    named = [table for table in tables if table.names]
    of_value: dict[Any, int]
    if named:
        classes = _agreed(named)
        # A whole number is an index and a text a name, even where names are digits.
        of_value = {name: index for index, name in enumerate(classes)} | {i: i for i in range(len(classes))}
    else:
        cells = [[v if v is None or _no_label(v) else str(v) for v in column] for column in cells]
        classes = sorted({v for column in cells for v in column if v is not None and not _no_label(v)}, key=_order)
        of_value = {value: index for index, value in enumerate(classes)}
    for table, column in zip(tables, cells, strict=True):
        _refuse_unknown(table, column, of_value, classes)
    return classes, [[UNLABELED if v is None else of_value[v] for v in column] for column in cells]


def _labeled(table: Table) -> list[Any]:
    """The labels that count, None for every unlabeled row."""
    if table.labels is None:
        if any(split != "unlabeled" for split in table.splits):
            raise UserError(
                f"{table.file} has no label column: name one 'label', or call the file 'unlabeled' if it has no labels."
            )
        return [None] * len(table.splits)
    values = [whole(v) for v in table.labels]
    empty = [
        table.row(i)
        for i, (value, split) in enumerate(zip(values, table.splits, strict=True))
        if value is None and split not in (None, "unlabeled")
    ]
    if empty:
        raise UserError(
            f"{table.file} has no label in {listed(empty, _SHOWN)}: add it, or move the rows to 'unlabeled'."
        )
    return [None if s == "unlabeled" else v for v, s in zip(values, table.splits, strict=True)]


def whole(value: Any) -> Any:
    """A cell as its plain value: a gap in an integer column turns pandas' integers into 1.0, 2.0 ..., in CSV too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return value.partition(".")[0]
    return value


def refuse_strange_classes(path: Path, classes: Sequence[str]) -> None:
    """Stop when two classes of the dataset at ``path`` look like one, or one is no line of text.

    Raises:
        UserError: two names differ in nothing that a person sees, or one is empty, too long or has control characters.
    """
    spellings: dict[str, str] = {}
    for name in classes:
        look = _look(name)
        if not look or len(name) > _LONGEST or any(unicodedata.category(letter) in _NO_LETTERS for letter in name):
            raise UserError(
                f"{path} has the class {name[:_LONGEST]!a}, which is no line of 1 to {_LONGEST} letters: rename it."
            )
        if look in spellings:
            raise UserError(
                f"{path} has two classes that look alike, {spellings[look]!a} and {name!a}, two spellings of {look} "
                "in Unicode: give all their images one of the two names."
            )
        spellings[look] = name


def _look(name: str) -> str:
    """What a person sees of a name: neither how its accents are coded, nor format characters, nor how many blanks."""
    shown = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(shown.split())


def doubts(classes: Sequence[str]) -> tuple[str, ...]:
    """A sentence where names of classes look like several labels of one image."""
    parts = {name: [part.strip() for part in _SEPARATORS.split(name)] for name in classes}
    used = Counter(part for several in parts.values() for part in set(several))
    odd = [name for name, several in parts.items() if len(several) > 1 and any(used[part] > 1 for part in several)]
    if not odd:
        return ()
    return (
        f"labels such as {listed([repr(name) for name in odd], 3)} look like several at once: Reflux knows one label "
        "an image, so that each of them is a class of its own",
    )


def _agreed(tables: list[Table]) -> list[str]:
    first = tables[0]
    for other in tables[1:]:
        if other.names != first.names:
            raise UserError(
                f"{first.file} and {other.file} have different class names: export them with the same ones."
            )
    return list(first.names or [])


def _order(value: Any) -> tuple[int, float, str]:
    """Sort key: numbers by size, also when a CSV file holds them as text; then words by the alphabet."""
    text = str(value)
    return (0, float(text), text) if text.lstrip("-").isdecimal() else (1, 0.0, text)


def _refuse_unknown(table: Table, column: list[Any], of_value: dict[Any, int], classes: list[str]) -> None:
    wrong = [
        f"{table.row(i)} has {reprlib.repr(_shown(value))}"
        for i, value in enumerate(column)
        if value is not None and (_no_label(value) or value not in of_value)
    ]
    if wrong:
        known = f", here 0 to {len(classes) - 1} or a class's name" if table.names else ""
        raise UserError(
            f"{table.file} has labels out of range in {len(wrong):,} rows: {listed(wrong, _SHOWN)}; "
            f"labels are one whole number from 0 or one name a row{known}."
        )


def _shown(value: Any) -> Any:
    """A value as a table shows it: Python's own spelling of a date or a time means nothing to a reader."""
    return value if isinstance(value, int | float | str) else str(value)


def _no_label(value: Any) -> bool:
    """True if a value can't name a class: a negative number or one with a fraction, a list, a struct."""
    if isinstance(value, str):
        return bool(_NO_CLASS.fullmatch(value))
    return not isinstance(value, int) or value < 0
