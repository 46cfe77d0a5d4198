"""The tables that the suite is written over, derived from the manifest; plain pandas, no Great Expectations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reflux.components.core.contract import DAMAGED, LABELED_SPLITS
from reflux.components.stages.validate.duplicates import nearest_in_other_group


def images(manifest: pd.DataFrame) -> pd.DataFrame:
    """Each image's copy in another split, in words or None (``same_image_in``), and ``pixel_std``."""
    # The first rows of a report should be the same, whatever the hashes are.
    table = manifest[["path", "split", "sha256", "pixel_std"]].sort_values("path", ignore_index=True)
    table["same_image_in"] = _double(table, "split", "{} in {}")
    # Hashes are most of a manifest's memory.
    return table.drop(columns=["split", "sha256"])


def look_alikes(manifest: pd.DataFrame, near_duplicate_bits: int) -> pd.DataFrame:
    """Each test image's look-alike among the images that are trained on, unlabeled ones too, in words or None.

    Args:
        manifest: a row an image, with ``path``, ``split``, ``phash``.
        near_duplicate_bits: perceptual hashes that differ in at most so many bits look alike.

    Returns:
        The test images, with ``similar_image_in``.
    """
    table = manifest.loc[manifest["split"] != "val", ["path", "split", "phash"]].sort_values("path", ignore_index=True)
    tested = (table["split"] == "test").to_numpy()
    sides = np.where(tested, "tested", "trained")
    nearest, distance = nearest_in_other_group(table["phash"], sides.tolist(), near_duplicate_bits)
    alike = np.flatnonzero(tested & (nearest >= 0))
    others = table.iloc[nearest[alike]]
    words: list[str | None] = [None] * len(table)
    for row, path, split, bits in zip(alike, others["path"], others["split"], distance[alike], strict=True):
        words[row] = f"{path} in {split} ({bits} bits apart)"
    table["similar_image_in"] = words
    return table.loc[tested, ["path", "similar_image_in"]].reset_index(drop=True)


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
    """How many images of each class each labeled split holds, zeros too: ``split``, ``class_name``, ``images``.

    An empty training split is left out: unlabeled images may be all that there is to learn from.
    """
    counts = labeled_images.groupby(["split", "label_name"]).size()
    splits = LABELED_SPLITS if (labeled_images["split"] == "train").any() else LABELED_SPLITS[1:]
    pairs = [(split, name) for split in splits for name in classes]
    return pd.DataFrame(
        [(split, name, f"{name} in {split}", int(counts.get((split, name), 0))) for split, name in pairs],
        columns=["split", "class_name", "class_and_split", "images"],
    )


def recalls(counts: pd.DataFrame) -> pd.DataFrame:
    """How well each class's recall can be known from its validation and test images, the least known first.

    Args:
        counts: the :func:`class_counts`.

    Returns:
        ``images_of``, such as ``13 validation images of rose``, and ``points``: half the width of the 95 % interval of
        a recall (Wilson 1927) in points, where it is widest, at a half.
    """
    from statsmodels.stats.proportion import proportion_confint

    held_out = counts[(counts["split"] != "train") & (counts["images"] > 0)]
    held_out = held_out.sort_values("images", kind="stable", ignore_index=True)
    low, high = proportion_confint(held_out["images"] // 2, held_out["images"], alpha=0.05, method="wilson")
    words = held_out["split"].map({"val": "validation", "test": "test"})
    names = [
        f"{n:,} {word} {'image' if n == 1 else 'images'} of {name}"
        for n, word, name in zip(held_out["images"], words, held_out["class_name"], strict=True)
    ]
    return pd.DataFrame({"images_of": names, "points": 50 * (high - low)})


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


def groups(manifest: pd.DataFrame) -> pd.DataFrame | None:
    """Each group of images (``group``) with the splits that it is in where these are several, or None (``splits``).

    Unlabeled images are trained on. Returns None where no image has a group.
    """
    known = manifest.loc[manifest["group"].notna(), ["group", "split"]].replace({"split": {"unlabeled": "train"}})
    if known.empty:
        return None
    splits = known.drop_duplicates().groupby("group")["split"].agg(sorted)
    words = [" and ".join(where) if len(where) > 1 else None for where in splits]
    return pd.DataFrame({"group": splits.index, "splits": pd.Series(words, dtype=object)})


def files(manifest: pd.DataFrame, quarantine: pd.DataFrame) -> pd.DataFrame:
    """Every file of the dataset, with the ``reason`` why it was set aside, or None; a repeat is no damage."""
    damaged = quarantine.loc[quarantine["kind"].isin(DAMAGED), ["path", "reason"]]
    return pd.concat([damaged.astype(object), manifest[["path"]].assign(reason=None)], ignore_index=True)


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
