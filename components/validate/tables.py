"""The tables that the suite is written over, derived from the manifest; plain pandas, no Great Expectations."""

from collections.abc import Sequence

import pandas as pd

from components.core.contract import LABELED_SPLITS
from components.validate.duplicates import nearest_in_other_group


def images(manifest: pd.DataFrame, near_duplicate_bits: int) -> pd.DataFrame:
    """The manifest with each image's copy and look-alike in another split.

    Args:
        manifest: a row an image, with ``path``, ``split``, ``sha256``, ``phash``, ``width``, ``height``, ``mode``.
        near_duplicate_bits: perceptual hashes that differ in at most so many bits look alike.

    Returns:
        The columns that are checked, with ``same_image_in`` and ``similar_image_in``, the other image in words or None.
    """
    # The first rows of a report should be the same, whatever the hashes are.
    table = manifest.sort_values("path", ignore_index=True)
    table["same_image_in"] = _double(table, "split", "{} in {}")
    table["similar_image_in"] = None
    # A double has been named already: it would only hide which image looks like it.
    single = table[table["same_image_in"].isna()]
    nearest, distance = nearest_in_other_group(single["phash"], single["split"], near_duplicate_bits)
    alike = nearest >= 0
    others = single.iloc[nearest[alike]]
    table.loc[single.index[alike], "similar_image_in"] = [
        f"{path} in {split} ({bits} bits apart)"
        for path, split, bits in zip(others["path"], others["split"], distance[alike], strict=True)
    ]
    # Hashes are most of a manifest's memory.
    return table.drop(columns=["split", "sha256", "phash"])


def labeled(manifest: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The images that should have a label.

    Returns:
        Their rows with ``label_name``, the class that the label means or what it is instead, and ``other_label_in``,
        an image of the same content with another label, in words, or None.
    """
    wanted = manifest.loc[manifest["split"] != "unlabeled", ["path", "split", "sha256", "label"]]
    table = wanted.sort_values("path", ignore_index=True)
    names = dict(enumerate(classes))
    table["label_name"] = [
        "no label" if pd.isna(label) else names.get(label, f"unknown label {label}") for label in table["label"]
    ]
    table["other_label_in"] = _double(table, "label_name", "{} (labeled {})")
    return table.drop(columns="sha256")


def class_counts(labeled_images: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """How many images of each class each labeled split holds, zeros too: ``split``, ``class_name``, ``images``."""
    counts = labeled_images.groupby(["split", "label_name"]).size()
    pairs = [(split, name) for split in LABELED_SPLITS for name in classes]
    return pd.DataFrame(
        [(split, name, f"{name} in {split}", int(counts.get((split, name), 0))) for split, name in pairs],
        columns=["split", "class_name", "class_and_split", "images"],
    )


def shares_of_classes(labeled_images: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Each class's share of the labeled images, 0..1."""
    shares = labeled_images["label_name"].value_counts(normalize=True)
    return {name: float(shares.get(name, 0.0)) for name in classes}


def class_shifts(shares: dict[str, float], previous: dict[str, float]) -> pd.DataFrame:
    """How far each class's share moved since the previous data version, new and vanished classes too."""
    names = [*shares, *(name for name in previous if name not in shares)]
    rows = [(name, previous.get(name, 0.0), shares.get(name, 0.0)) for name in names]
    table = pd.DataFrame(rows, columns=["class_name", "previous_share", "share"])
    table["shift"] = (table["share"] - table["previous_share"]).abs()
    return table


def files(manifest: pd.DataFrame, quarantine: pd.DataFrame) -> pd.DataFrame:
    """Every file of the dataset, with the ``reason`` why it is unreadable, or None; a repeat is no damage."""
    unreadable = quarantine.loc[quarantine["kind"] == "unreadable", ["path", "reason"]]
    return pd.concat([unreadable.astype(object), manifest[["path"]].assign(reason=None)], ignore_index=True)


def _double(table: pd.DataFrame, column: str, words: str) -> list[str | None]:
    """For each image one of the same content that differs in ``column``, in ``words``, or None."""
    doubles: list[str | None] = [None] * len(table)
    suspects = table[table.duplicated("sha256", keep=False)]
    for _, group in suspects.groupby("sha256", sort=False):
        values, paths = group[column].tolist(), group["path"].tolist()
        for row, value in zip(group.index, values, strict=True):
            other = next((i for i, v in enumerate(values) if v != value), None)
            if other is not None:
                doubles[row] = words.format(paths[other], values[other])
    return doubles
