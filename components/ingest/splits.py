"""The split of each image: its source's, or by a hash of its content."""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised"),
}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}
_FILE = re.compile(rf"^({'|'.join(_SPLIT_OF)})(?=$|[-_.\d])")


def split_of(word: str) -> str | None:
    """The split that a folder's name or a manifest's cell means, or None."""
    return _SPLIT_OF.get(word.strip().lower())


def split_of_file(stem: str) -> str | None:
    """The split that a file's name begins with, as in ``train-00000-of-00002``, or None."""
    match = _FILE.match(stem.lower())
    return _SPLIT_OF[match.group(1)] if match else None


def assign(given: Iterable[str | None], ids: NDArray[np.uint64], val: float, test: float) -> NDArray[np.object_]:
    """Give every image a split, and take the splits that the source lacks from the training images.

    An image's split depends on its content alone: it does not change when other images come or go, and equal images
    share it. Validation images are taken from one end of the hash's range and test images from the other, so that a
    change of one share leaves the other split as it was.

    Args:
        given: the source's own split of each image, or None.
        ids: the first eight bytes of each image's content hash.
        val, test: shares of the training images that become these splits when the source brings none, 0..1.
    """
    named = np.array([split if isinstance(split, str) else "" for split in given], dtype=object)
    splits = np.where(named == "", "train", named)
    place = ids.astype(np.float64) / 2.0**64
    present = set(named)
    pool = splits == "train"
    if "test" not in present:
        splits[pool & (place < test)] = "test"
    if "val" not in present:
        splits[pool & (place >= 1 - val)] = "val"
    return splits
