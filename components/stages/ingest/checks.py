"""Images that ingest leaves out, and datasets that it refuses."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest import groups
from reflux.components.stages.ingest.decoding import Failure

# What each kind of image that is left out is, after their number; damage first, which counts against
# ingest.max_quarantined.
WORDS = {
    "unreadable": "unreadable",
    "small": "smaller than ingest.min_size_px",
    "labels": "under two labels",
    "overlap": "in a second split",
    "repeat": "repeated in their split",
    "group": "unlabeled, of groups that are validated or tested on",
}
# The split that keeps an image which several have.
_KEEPS = ("test", "val", "train", "unlabeled")
_SHOWN = 3


def drop_two_labels(frame: pd.DataFrame, classes: Sequence[str]) -> tuple[pd.DataFrame, list[Failure]]:
    """Set aside images whose content has two labels, all of its labeled copies: nobody knows which label is right."""
    copies = frame.duplicated("sha256", keep=False) & (frame["label"] != UNLABELED)
    suspects = frame.loc[copies, ["sha256", "label", "path"]].sort_values("path", kind="stable")
    suspects = suspects[suspects.groupby("sha256")["label"].transform("nunique") > 1]
    lost = []
    for _, same in suspects.groupby("sha256"):
        rows = list(zip(same["path"], same["label"], strict=True))
        for path, label in rows:
            other, another = next(row for row in rows if row[1] != label)
            reason = f"{path} is labeled {classes[label]}, and {other} of the same content {classes[another]}."
            lost.append(Failure(path, reason, "labels"))
    return _without(frame, suspects.index, lost)


def refuse_damaged(
    damaged: Sequence[Failure], count: int, limit: float, source: Path, written: Path | None = None
) -> None:
    """Stop when too many of ``count`` images are set aside; ``written`` is where all of them are listed, if anywhere.

    Raises:
        UserError: their share is above ``limit``.
    """
    share = len(damaged) / max(1, count)
    if share > limit:
        numbers = Counter(failure.kind for failure in damaged)
        kinds = ", ".join(f"{numbers[kind]:,} {words}" for kind, words in WORDS.items() if numbers[kind])
        examples = listed([failure.reason.rstrip(".") for failure in damaged], _SHOWN)
        files = f"the files listed in {written}" if written else "these files"
        raise UserError(
            f"{len(damaged):,} of {count:,} images in {source} can't be used ({share:.2%}, and ingest.max_quarantined "
            f"is {limit:.2%}): {kinds}; {examples}; fix or delete {files}, or raise the limit in params.yaml."
        )


def drop_overlaps(frame: pd.DataFrame, source: Path) -> tuple[pd.DataFrame, list[Failure]]:
    """Keep an image that several splits have in one: in test, else in val, else in train.

    What is trained on is no test. The test split stays whole, so that it remains the one that others measure on.

    Raises:
        UserError: nothing would be left of a split.
    """
    suspects = frame.loc[frame.duplicated("sha256", keep=False), ["path", "split", "sha256"]]
    suspects = suspects.assign(rank=suspects["split"].astype("str").map(_KEEPS.index))
    ordered = suspects.sort_values(["rank", "path"], kind="stable")
    keeper = ordered.groupby("sha256")[["rank", "path"]].transform("first")
    elsewhere = ordered["rank"] > keeper["rank"]
    lost = [
        Failure(path, f"{path} in {_KEEPS[mine]} has the same content as {other} in {_KEEPS[rank]}.", "overlap")
        for path, mine, other, rank in zip(
            *(ordered.loc[elsewhere, name] for name in ("path", "rank")),
            *(keeper.loc[elsewhere, name] for name in ("path", "rank")),
            strict=True,
        )
    ]
    kept, lost = _without(frame, ordered.index[elsewhere], lost)
    for split in sorted(set(frame["split"]) - set(kept["split"]) - {"unlabeled"}):
        raise UserError(
            f"All images of {split} in {source} are in another split too ({listed([f.path for f in lost], _SHOWN)}): "
            f"put others into {split}, or take one of the two out, so that ingest draws it from the training images."
        )
    return kept, lost


def drop_repeats(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Failure]]:
    """Keep one of the images that a split holds twice.

    In training a second copy is a weight that nobody chose, and in the test split it counts one mistake twice, which
    makes intervals too narrow. It is listed, not hidden.
    """
    same = ["split", "sha256"]
    suspects = frame.loc[frame.duplicated(same, keep=False), [*same, "path"]]
    ordered = suspects.sort_values("path", kind="stable")
    first = ordered.groupby(same, observed=True)["path"].transform("first")
    repeats = ordered.duplicated(same)
    lost = [
        Failure(path, f"{path} has the same content as {original} in the same split.", "repeat")
        for path, original in zip(ordered["path"][repeats], first[repeats], strict=True)
    ]
    return _without(frame, ordered.index[repeats], lost)


def refuse_unlearnable(
    frame: pd.DataFrame, classes: list[str], source: Path, taken: Sequence[str], labels_needed: bool = True
) -> None:
    """Stop when no classifier can be made of the dataset.

    Args:
        frame: the images that stay, with ``label``, ``split`` and ``group``, which is drawn as a whole.
        taken: the splits that are taken from the training images.
        labels_needed: of training images; else unlabeled ones will do, which a zero-shot teacher labels.

    Raises:
        UserError: there are fewer than two classes, no training images, or a class has too few for all splits.
    """
    labeled = frame["label"] != UNLABELED
    found = sorted(frame.loc[labeled, "label"].unique())
    if not found:
        raise UserError(
            f"{source} has no labeled images that can be used: label at least three of each of two classes or more; "
            "the others may stay unlabeled."
        )
    if len(found) < 2:
        raise UserError(
            f"{source} has one class ({classes[found[0]]}): a classifier needs at least two; to tell it from all else, "
            "put images of other things into a class of their own."
        )
    if not (frame["split"] == "train").any():
        if labels_needed or not (frame["split"] == "unlabeled").any():
            raise UserError(f"{source} has no training images: add a split named train, or lower ingest.split.")
        if taken:
            raise UserError(
                f"{source} has no labeled training images to take {' and '.join(taken)} from: label images for a split "
                "named val and for one named test, by which a student is chosen and judged, or add a split named train."
            )
        return
    pool = frame.loc[labeled & frame["split"].isin(["train", *taken]), ["label", groups.COLUMN]]
    grouped = pool[groups.COLUMN].notna()  # an image without a group is one of its own
    if grouped.any():
        pool = pd.concat([pool[~grouped], pool[grouped].drop_duplicates()])
    counts = pool["label"].value_counts().reindex(range(len(classes)), fill_value=0)
    small = [f"{classes[label]} ({count})" for label, count in counts.items() if count <= len(taken)]
    if small:
        what = "groups of images" if grouped.any() else "usable images"
        where = f", one each for {' and '.join(['train', *taken])}" if taken else " to train on"
        raise UserError(
            f"{source} has too few {what} in {len(small):,} of {len(classes):,} classes, {listed(small, _SHOWN)}: each "
            f"needs at least {len(taken) + 1}{where}; add some, merge classes, or leave these out."
        )


def _without(frame: pd.DataFrame, rows: pd.Index, lost: list[Failure]) -> tuple[pd.DataFrame, list[Failure]]:
    # Without any, a copy would be memory for nothing.
    return (frame.drop(index=rows) if lost else frame), lost
