"""Which split an image belongs to: as its source says, or by a hash of its content."""

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
    found = _FILE.match(stem.lower())
    return _SPLIT_OF[found.group(1)] if found else None


def assign(given: Iterable[str | None], ids: NDArray[np.uint64], val: float, test: float) -> NDArray[np.object_]:
    """Give every image a split, and carve out of the training images what the source lacks.

    An image's place depends on its content alone: it does not move when others come or go, and equal images go
    together. Validation images are taken from one end of the hash's range and test images from the other, so that a
    change of one share leaves the other split as it was.

    Args:
        given: the source's own split of each image, or None.
        ids: the first eight bytes of each image's content hash.
        val: share of the training images that becomes ``val`` when the source brings none, 0..1.
        test: likewise for ``test``.
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
