"""A dataset as its format's reader returns it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

UNLABELED = -1


@dataclass(frozen=True, slots=True)
class Item:
    """One image before it is read.

    Attributes:
        path: its name for people, relative to the source: ``cats/1.png`` or ``train.parquet#17``.
        split: as the source says, or None.
        label: index of its class, or ``UNLABELED``.
        data: the file's bytes, or the file.
        slices: its text in each column that ``ingest.slices`` names.
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
    """

    classes: list[str]
    count: int
    items: Iterable[Item]
    ignored: list[str]
