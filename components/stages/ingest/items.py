"""A dataset as its format's reader returns it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One image before it is read.

    Attributes:
        path: its name for people, relative to the source: ``cats/1.png`` or ``train.parquet#17``.
        split: as the source says, or None.
        label: index of its class, or ``UNLABELED``.
        data: the file's bytes, or the file.
        slices: its text in each column that ``ingest.slices`` names, and then in that of ``ingest.group``.
    """

    path: str
    split: str | None
    label: int
    data: bytes | Path
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset, its images not yet read.

    Attributes:
        classes: class names in label order.
        count: how many items there are.
        items: one pass over them, in an order that does not depend on the file system.
        ignored: files of the folder that are no pictures.
        doubts: what its owner may not have meant, a sentence each.
    """

    classes: list[str]
    count: int
    items: Iterable[Item]
    ignored: list[str]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One file of a dataset that is kept in tables, its images not yet read.

    Attributes:
        images: begins a pass over the images, one a row.
        row: the name of a row in messages and in the manifest, by its index.
        labels: as they stand in the file, None where empty; None when there is no such column.
        splits: the split of each row, or None where the table does not say.
        names: class names in label order, if the table carries them.
        slices: of each of these columns, the text of each row.
    """

    file: Path
    images: Callable[[], Iterator[bytes | Path]]
    row: Callable[[int], str]
    labels: list[Any] | None
    splits: list[str | None]
    names: list[str] | None
    slices: list[list[str]]
