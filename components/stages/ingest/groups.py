"""Groups of images that belong together (``ingest.group``): none is on both sides of a split."""

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reflux.components.core.contract import MISSING
from reflux.components.core.data.shards import ids_of
from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest.decoding import Failure

COLUMN = "group"  # of the manifest
_SHOWN = 3


def groups_of(frame: pd.DataFrame, column: str | None) -> "pd.Series[str]":
    """The group of each image, as text; missing where it has none, or where no ``column`` names groups."""
    if column is None:
        return pd.Series(pd.NA, frame.index, "string")
    texts = frame[column].astype("string")
    return texts.mask(texts == MISSING)


def ids_for_splits(groups: "pd.Series[str]", sha256: "pd.Series[str]") -> NDArray[np.uint64]:
    """What decides each image's split: the hash of its group, or of its content where it has none."""
    ids = ids_of(sha256)
    known = groups.notna().to_numpy()
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in groups[known].unique()}
    ids[known] = ids_of(groups[known].map(digests))
    return ids


def refuse_broken(frame: pd.DataFrame, source: object, name: str) -> None:
    """Stop where the source's own splits put images of one group into several of train, val and test.

    Raises:
        UserError: they do; the message names the groups, which the source calls ``name``.
    """
    labeled = frame.loc[(frame["split"] != "unlabeled") & frame[COLUMN].notna(), [COLUMN, "split"]]
    splits = labeled.drop_duplicates().astype("str").groupby(COLUMN)["split"].agg(sorted)
    broken = splits[splits.map(len) > 1]
    if len(broken):
        shown = listed([f"{group!r} in {' and '.join(where)}" for group, where in broken.items()], _SHOWN)
        raise UserError(
            f"{source} has images of the {name} {shown}: move all images of a {name} into one split, or take the "
            "column of splits out, so that they are drawn by ingest.group."
        )


def leave_out_unlabeled(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[Failure]]:
    """Leave out the unlabeled images of a group that is validated or tested on: the student would learn from them."""
    held_out = frame.loc[frame["split"].isin(["val", "test"]) & frame[COLUMN].notna(), [COLUMN, "split"]]
    split_of = dict(zip(held_out[COLUMN], held_out["split"], strict=True))
    leaks = (frame["split"] == "unlabeled") & frame[COLUMN].isin(list(split_of))
    lost = [
        Failure(path, f"{path} is unlabeled, and its {name} {group!r} is in {split_of[group]}.", "group")
        for path, group in zip(frame.loc[leaks, "path"], frame.loc[leaks, COLUMN], strict=True)
    ]
    # Without any, a copy would be memory for nothing.
    return frame[~leaks] if lost else frame, lost
