"""Images that ingest leaves out, and datasets that it refuses."""

from pathlib import Path

import pandas as pd

from components.core.errors import UserError, listed
from components.core.images.shards import UNLABELED
from components.ingest.decoding import Failure

_SHOWN = 3


def refuse_unreadable(failures: list[Failure], count: int, max_unreadable: float, source: Path, written: Path) -> None:
    """Stop when too many of a dataset's ``count`` images can't be used; ``written`` is where all of them are listed.

    Raises:
        UserError: their share is above ``max_unreadable``.
    """
    share = len(failures) / count
    if share > max_unreadable:
        examples = listed([failure.reason.rstrip(".") for failure in failures], _SHOWN)
        raise UserError(
            f"{len(failures):,} of {count:,} images in {source} can't be used ({share:.2%}, and ingest.max_unreadable "
            f"is {max_unreadable:.2%}): {examples}; fix or delete the files listed in {written}, or raise the limit."
        )


def drop_repeats(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Failure]]:
    """Keep one of the images that a split holds twice.

    In training a second copy is a weight that nobody chose, and in the test split it counts one mistake twice, which
    makes intervals too narrow. It is listed, not hidden. Copies with different labels or in different splits stay, as
    nobody can know which one is right, and ``validate`` stops the run.
    """
    same = ["split", "sha256", "label"]
    suspects = frame.loc[frame.duplicated("sha256", keep=False), [*same, "path"]]
    ordered = suspects.sort_values("path", kind="stable")
    first = ordered.groupby(same, observed=True)["path"].transform("first")
    repeats = ordered.duplicated(same)
    listed_repeats = [
        Failure(path, f"{path} has the same content as {original} in the same split.")
        for path, original in zip(ordered["path"][repeats], first[repeats], strict=True)
    ]
    # Without repeats, a copy would be memory for nothing.
    return frame.drop(index=ordered.index[repeats]) if listed_repeats else frame, listed_repeats


def refuse_unlearnable(frame: pd.DataFrame, classes: list[str], source: Path) -> None:
    """Stop when no classifier can be made of the dataset.

    Raises:
        UserError: there are fewer than two classes, a class with one image, or no training images.
    """
    labeled = frame.loc[frame["label"] != UNLABELED, ["label", "path"]]
    counts = labeled["label"].value_counts()
    if len(counts) < 2:
        names = f"one class ({classes[counts.index[0]]})" if len(counts) else "no labeled images"
        raise UserError(f"{source} has {names}: a classifier needs at least two classes with a few images each.")
    single = sorted(label for label, n in counts.items() if n == 1)
    if single:
        paths = labeled.set_index("label")["path"]
        named = listed([f"{classes[label]} ({paths[label]})" for label in single], _SHOWN)
        raise UserError(
            f"{source} has one image of {named}: a class needs images to learn from and others to be tested on, "
            "so add some or remove the class."
        )
    if not (frame["split"] == "train").any():
        raise UserError(f"{source} has no training images: add a split named train, or lower ingest.split.")
