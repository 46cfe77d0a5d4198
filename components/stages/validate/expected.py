"""What is expected of a data version: tables of rows with their expectations, each registered by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reflux.components.core.registry import Registry
from reflux.components.stages.validate import suite, tables
from reflux.components.stages.validate.suite import Expectations


@dataclass(frozen=True)
class Data:
    """A data version as ``ingest`` left it, and the limits of ``validate``.

    Attributes:
        file: ingest's ``manifest.parquet``, for columns that ``manifest`` does not have.
        manifest: a row an image: ``path``, ``split``, ``label``, ``sha256``, ``phash``, ``pixel_std``, ``group``.
        labeled: the images that should have a label; see :func:`reflux.components.stages.validate.tables.labeled`.
        quarantine: the files that ingest left out, with ``path``, ``reason`` and ``kind``.
        classes: their names, in label order.
        previous_shares: each class's share of the previous data version that passed, 0..1; None without one.
        near_duplicate_bits: perceptual hashes that differ in at most so many bits look alike.
        max_class_shift: how far a class's share may move between data versions, 0..1.
    """

    file: Path
    manifest: pd.DataFrame
    labeled: pd.DataFrame
    quarantine: pd.DataFrame
    classes: list[str]
    previous_shares: dict[str, float] | None
    near_duplicate_bits: int
    max_class_shift: float


Expected = Callable[[Data], Expectations]

TABLES: Registry[Expected] = Registry("tables of expectations")


def expect(name: str) -> Callable[[Expected], Expected]:
    """Register expectations of a table that is made from the data.

    Args:
        name: of the table's pages.

    Raises:
        ValueError: the name is taken.
    """
    return TABLES.registers(name, lambda function: function)


@expect("images")
def images(data: Data) -> Expectations:
    """Every image: no copy in another split, and more than one color."""
    return Expectations(tables.images(data.manifest), "path", suite.image_checks())


@expect("test-images")
def test_images(data: Data) -> Expectations:
    """Every test image: it looks like none that is trained on."""
    rows = tables.look_alikes(data.manifest, data.near_duplicate_bits)
    return Expectations(rows, "path", suite.look_alike_checks(data.near_duplicate_bits))


@expect("labels")
def labels(data: Data) -> Expectations:
    """Every labeled image: one known class."""
    return Expectations(data.labeled, "path", suite.label_checks(data.classes))


@expect("groups")
def groups(data: Data) -> Expectations:
    """Every group of images: one split."""
    note = "ingest.group names no column of groups"
    return Expectations(tables.groups(data.manifest), "group", suite.group_checks(), note)


@expect("classes")
def classes(data: Data) -> Expectations:
    """Every class in each labeled split: some images."""
    return Expectations(tables.class_counts(data.labeled, data.classes), "class_and_split", suite.count_checks())


@expect("recalls")
def recalls(data: Data) -> Expectations:
    """Every class in val and test: enough images."""
    rows = tables.recalls(tables.class_counts(data.labeled, data.classes))
    return Expectations(rows, "images_of", suite.recall_checks())


@expect("files")
def files(data: Data) -> Expectations:
    """Every file of the dataset: none is damaged."""
    return Expectations(tables.files(data.manifest, data.quarantine), "path", suite.file_checks())


@expect("class-shares")
def class_shares(data: Data) -> Expectations:
    """Every class: its share is that of the previous data version."""
    shares = tables.shares_of_classes(data.labeled, data.classes)
    rows = None if data.previous_shares is None else tables.class_shifts(shares, data.previous_shares)
    note = "no earlier data version has passed on this machine"
    return Expectations(rows, "class_name", suite.shift_checks(data.max_class_shift), note)
