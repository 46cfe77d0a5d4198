"""The split of each image: its source's, or by a hash of its content."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised"),
}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}
# Places of a class in each drawn split. With 5 in classes of 20, one image in a hundred would move from train to val or
# test while its class grows from 12 to 200; with 3, one in 300,000 does.
LEAST = 3
_FILE = re.compile(rf"^({'|'.join(_SPLIT_OF)})(?=$|[-_.\d])")


def split_of(word: str) -> str | None:
    """The split that a folder's name or a manifest's cell means, or None."""
    return _SPLIT_OF.get(word.strip().lower())


def split_of_file(stem: str) -> str | None:
    """The split that a file's name begins with, as in ``train-00000-of-00002``, or None."""
    match = _FILE.match(stem.lower())
    return _SPLIT_OF[match.group(1)] if match else None


def drawn(given: Iterable[str | None], val: float, test: float) -> tuple[str, ...]:
    """The splits that are taken from the training images: those which the source lacks, unless their share is 0."""
    present = set(given)
    return tuple(split for split, share in (("test", test), ("val", val)) if share and split not in present)


def assign(
    given: Sequence[str | None], labels: NDArray[np.int64], ids: NDArray[np.uint64], val: float, test: float
) -> NDArray[np.object_]:
    """Give every image a split, and take the splits that the source lacks from the training images.

    An id is a place in the hash's range. Test images are taken from its low end and validation images from its high
    end, so that a change of one share leaves the other split as it was, and equal images share a split. In a class too
    small for that, its ``LEAST`` lowest places are test images all the same and its highest validation images (of
    fewer than 4 * ``LEAST`` places a quarter, at least one), and as many are left to train on.

    When images are added, those that are held out for their place stay. Only an image that is held out for its rank
    moves, to train, once its class has enough others: 2 % of the images of a class that grows from 12 to 200 at shares
    of 0.15, whose validation and test images are never fewer than 3 (by the hash alone: 0). From train to validation or
    test an image moves only in a class of fewer than 4 * ``LEAST`` places or with as few as ``LEAST`` to train on, when
    images are taken out, or when a group gets images of another class. A comparison with a model of earlier data
    has to leave out what that one was trained on, as the one with the champion does.

    Args:
        given: the source's own split of each image, or None.
        labels: the class of each image.
        ids: the first eight bytes of each image's content hash, or of its group's.
        val, test: shares of the training images that become these splits when the source brings none, 0..1.
    """
    named = np.array([split if isinstance(split, str) else "" for split in given], dtype=object)
    splits = np.where(named == "", "train", named)
    taken = drawn(named, val, test)
    pool = np.flatnonzero(splits == "train")
    if not taken or not len(pool):
        return splits
    order = np.lexsort((ids[pool], labels[pool]))
    classes, places = labels[pool][order], ids[pool][order]
    first = np.flatnonzero(_changes(classes) | _changes(places))  # equal images have one place
    classes, places = classes[first], places[first]
    where = places.astype(np.float64) / 2.0**64
    bounds: list[int] = [*np.flatnonzero(_changes(classes)).tolist(), len(classes)]
    spans = [(begin, end, _least(end - begin, len(taken))) for begin, end in pairwise(bounds)]
    held_out = {split: np.zeros(len(places), bool) for split in ("test", "val")}
    if "test" in taken:
        for begin, end, least in spans:
            count = int(np.count_nonzero(where[begin:end] < test))
            held_out["test"][begin : begin + min(max(count, least), end - begin - least * len(taken))] = True
    testing = places[held_out["test"]]
    if "val" in taken:
        free = ~np.isin(places, testing)
        for begin, end, least in spans:
            rest = begin + np.flatnonzero(free[begin:end])
            count = int(np.count_nonzero(where[rest] >= 1 - val))
            held_out["val"][rest[len(rest) - min(max(count, least), max(len(rest) - least, 0)) :]] = True
    splits[pool[np.isin(ids[pool], places[held_out["val"]])]] = "val"
    splits[pool[np.isin(ids[pool], testing)]] = "test"
    return splits


def _least(places: int, taken: int) -> int:
    """The least number of a class's places in train and in each split that is taken from it."""
    return min(LEAST, max(1, places // 4)) if places > taken else 0


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it; the first does."""
    return np.append(True, values[1:] != values[:-1])
