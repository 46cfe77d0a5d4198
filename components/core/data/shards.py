"""The images of one split, as ``ingest`` leaves them: on disk, in the order of their ids."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.encoded import EncodedImages, rows_of

UNLABELED = -1
_BYTES_AT_ONCE = 2**24
_BYTES_KEPT = 2**27

Pixels = npt.NDArray[np.uint8]


class Images(Protocol):
    """Images that are read on access, so that a dataset may be larger than the memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | npt.NDArray[np.int64], /) -> Pixels:
        """The images of a range or of any indices, uint8 [n, H, W, C]."""


@dataclass(frozen=True)
class Shard:
    """Images with their labels and ids.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N]; ``UNLABELED`` where there is none.
        ids: uint64 [N], the first eight bytes of each image's content hash.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """What training reads of a dataset apart from its images, and so all that trains anew when it changes.

    Attributes:
        classes: their names, in label order.
        image_size: as stored, in pixels.
        channels: 1 or 3.
        mean, std: of each channel of the training split's pixels, on a 0..1 scale; of the unlabeled if it is empty.
    """

    classes: tuple[str, ...]
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_dataset(path: Path) -> Dataset:
    """Read ingest's ``images.json``."""
    facts = read_json(path)
    return Dataset(
        tuple(facts["classes"]), facts["image_size"], facts["channels"], tuple(facts["mean"]), tuple(facts["std"])
    )


def ids_of(sha256: Iterable[str]) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each content hash, big-endian."""
    return np.array([int(digest[:16], 16) for digest in sha256], dtype=np.uint64)


def open_shard(folder: Path, workers: int = 0) -> Shard:
    """Open a split without reading its images: decoded in a memory map, or encoded, as ``ingest.storage`` chose.

    Args:
        folder: of the split.
        workers: processes that decode encoded images; 0 decodes in the thread that asks for them.

    Raises:
        UserError: the folder is incomplete or its parts differ in length.
    """
    try:
        images = _open_images(folder, workers)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        ids = np.load(folder / "ids.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a readable image shard ({error}): run `reflux run` to ingest again."
        ) from None
    if not len(images) == len(labels) == len(ids):
        raise UserError(f"{folder} is damaged (its parts differ in length): run `reflux run` to ingest again.")
    return Shard(images, labels, ids)


def open_other(folder: Path, split: str, workers: int = 0) -> Shard | None:
    """Open a split of another dataset, which ``ingest`` left in a folder; None if it was to leave none."""
    shards = folder / "shards"
    return open_shard(shards / split, workers) if shards.is_dir() else None


def _open_images(folder: Path, workers: int) -> Images:
    if (folder / "images.bin").exists():
        return EncodedImages(folder, workers)
    decoded: Images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return decoded


def at_once(images: Images, most: int) -> int:
    """The number of images to read at a time, ``most`` or fewer: large ones must not fill the memory."""
    return max(1, min(most, _BYTES_AT_ONCE // math.prod(images.shape[1:])))


def decoded(images: Images) -> bool:
    """True if reading the images only copies them."""
    if isinstance(images, JoinedImages):
        return all(decoded(part) for part in images.parts)
    if isinstance(images, SomeImages):
        return decoded(images.whole)
    return not isinstance(images, EncodedImages)


def join(first: Shard, second: Shard) -> Shard:
    """Concatenate two splits without reading their images."""
    return Shard(
        JoinedImages(first.images, second.images),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
    )


def some(shard: Shard, rows: npt.NDArray[np.int64]) -> Shard:
    """The images of some rows [n] of a split, without reading them."""
    return Shard(SomeImages(shard.images, rows), shard.labels[rows], shard.ids[rows])


def some_labeled(shard: Shard, most: int) -> Shard:
    """Up to ``most`` of the images that have a label, in memory (128 MiB at most), from all over the shard."""
    most = max(1, min(most, _BYTES_KEPT // math.prod(shard.images.shape[1:])))
    rows = np.flatnonzero(shard.labels != UNLABELED)
    rows = rows[:: max(1, math.ceil(len(rows) / most))]
    return Shard(np.asarray(shard.images[rows]), shard.labels[rows], shard.ids[rows])


class JoinedImages:
    """The concatenation of two sets of images."""

    def __init__(self, first: Images, second: Images) -> None:
        self.parts = (first, second)
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Pixels:
        indices = rows_of(index, len(self))
        first, second = self.parts
        border = len(first)
        pixels = np.empty((len(indices), *self.shape[1:]), np.uint8)
        pixels[indices < border] = first[indices[indices < border]]
        pixels[indices >= border] = second[indices[indices >= border] - border]
        return pixels


class SomeImages:
    """Some of a set of images, by their rows [n]."""

    def __init__(self, whole: Images, rows: npt.NDArray[np.int64]) -> None:
        self.whole, self._rows = whole, rows
        self.shape = (len(rows), *whole.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Pixels:
        return self.whole[self._rows[index]]
