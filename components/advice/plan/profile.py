"""What a dataset is, found in seconds: a sample of it is decoded, the rest is only counted."""

import hashlib
import heapq
import io
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from reflux.components.core.contract import LABELED_SPLITS, MISSING
from reflux.components.core.data.processes import share_out
from reflux.components.core.data.shards import UNLABELED, Pixels, ids_of
from reflux.components.core.shift import NO_PREDICTIONS, Sample, class_counts, compare, statistics
from reflux.components.modalities.image.files import open_file, read_image
from reflux.components.modalities.image.pixels import FORMATS, Decoded, UnreadableImage, decode
from reflux.components.stages.ingest.checks import drop_two_labels, refuse_damaged, refuse_unlearnable
from reflux.components.stages.ingest.groups import COLUMN, groups_of, ids_for_splits
from reflux.components.stages.ingest.items import Item, Source
from reflux.components.stages.ingest.splits import assign, drawn

# Images of each split that are looked into; of a source without splits, those of train, val and test together.
_QUOTA = {"train": 1500, "val": 800, "test": 400, "unlabeled": 400, None: 2700}
_MEGAPIXELS = 300  # decoded at most: some seconds on two cores
_ITEMS_A_PART = 8  # that a process decodes at once
_SIDE = 144  # pixels; the sample is kept no larger, for the memory's sake
_COMPARED_BYTES = 2**30  # of files that might be repeats, because another one has their size
_COLORFUL = 0.01  # share of images with color from which a dataset is one of color
_SHIFT_ALPHA, _SHIFT = 0.01, 0.1  # splits differ if a test says so, and by so much: with many images any trifle is sure

Strings = npt.NDArray[np.object_]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Profile:
    """What a dataset is, as far as it decides how to train on it.

    Attributes:
        classes: their names, in label order.
        labeled: by split (train, val, test), the images of each class.
        unlabeled: images without a label.
        exact: False where the source has no splits and is too large to decode: then the counts are about right.
        sides: the shorter side of the images in pixels, as its 10 %, 50 % and 90 % quantiles.
        color: the images are more than shades of gray.
        transparent: share of images that can be transparent.
        repeats: files with the bytes of another one.
        shifts: in which figures the source's own splits differ, in words.
        decoding: seconds that decoding an image took, here and now.
    """

    classes: tuple[str, ...]
    labeled: Mapping[str, tuple[int, ...]]
    unlabeled: int
    exact: bool
    sides: tuple[int, int, int]
    color: bool
    transparent: float = 0.0
    repeats: int = 0
    shifts: tuple[str, ...] = ()
    decoding: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {split: sum(counts) for split, counts in self.labeled.items()} | {"unlabeled": self.unlabeled}

    @property
    def native(self) -> int:
        """The side in pixels that half of the images have at least."""
        return self.sides[1]

    @property
    def imbalance(self) -> float:
        """How many times as many training images the largest class has as the smallest one that has any."""
        present = [count for count in self.labeled["train"] if count]
        return max(present) / min(present) if present else 1.0


@dataclass(frozen=True)
class Look:
    """Images of a dataset that were decoded.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        labels: int64 [N].
        splits: [N], those that ``ingest`` will give them.
        ids: uint64 [N], as in :class:`reflux.components.core.data.shards.Shard`.
    """

    pixels: Pixels
    labels: Labels
    splits: Strings
    ids: npt.NDArray[np.uint64]


def look_at(
    source: Source,
    path: Path,
    val: float,
    test: float,
    max_megapixels: float,
    max_quarantined: float,
    processes: int,
    group: int | None = None,
) -> tuple[Profile, Look]:
    """Profile a dataset; 100,000 images take seconds.

    Args:
        source: the dataset.
        path: where it is, for messages.
        val, test: shares of the training images that become a split which the source lacks.
        max_megapixels: larger images count as unreadable.
        max_quarantined: share of images that ``ingest`` may set aside.
        processes: how many images are decoded at the same time.
        group: the place among the items' slices of what keeps images on one side of the splits.

    Raises:
        UserError: no classifier can be made of it, or too many images are under two labels.
    """
    listed = _read(source.items, group)
    headers = {row: header for row, item in listed.drawn if (header := _header(item)) is not None}
    sides = np.quantile([header.side for header in headers.values()] or [0], [0.1, 0.5, 0.9]).astype(np.int64).tolist()
    size = max(1, min(_SIDE, sides[1]))
    began = time.perf_counter()
    decode_part = partial(_decode_part, size=size, max_megapixels=max_megapixels)
    decoded = _decode_some(listed.drawn, headers, decode_part, processes)
    decoding = (time.perf_counter() - began) / max(1, len(decoded))
    rows, names = np.array(list(decoded), np.int64), {row: item.path for row, item in listed.drawn}
    hashes = pd.Series(listed.hashes)  # where an image was not decoded, its name stands in for its content
    hashes[rows] = [image.sha256 for image in decoded.values()]
    labels, count = listed.labels, len(source.classes)
    seen = pd.DataFrame({"path": [names[row] for row in rows], "sha256": hashes[rows], "label": labels[rows]})
    refuse_damaged(drop_two_labels(seen, source.classes)[1], len(seen), max_quarantined, path)
    splits = assign(listed.given, labels, ids_for_splits(listed.groups, hashes), val, test)
    items = pd.DataFrame({"split": splits, "label": labels, COLUMN: listed.groups})
    refuse_unlearnable(items, source.classes, path, drawn(listed.given, val, test))
    labeled = {split: tuple(class_counts(labels[splits == split], count).tolist()) for split in LABELED_SPLITS}
    pixels = np.zeros((len(rows), size, size, 3), np.uint8)
    for place, image in enumerate(decoded.values()):
        pixels[place] = image.pixels
    given = {split for split in listed.given if split}
    exact = {"val", "test"} <= given or len(decoded) == len(labels)
    look = Look(pixels, labels[rows], splits[rows], ids_of(hashes[rows]))
    profile = Profile(
        classes=tuple(source.classes),
        labeled=labeled,
        unlabeled=int((splits == "unlabeled").sum()),
        exact=exact,
        sides=(sides[0], sides[1], sides[2]),
        color=_share(_has_color(image) for image in pixels) >= _COLORFUL,
        transparent=_share(header.transparent for header in headers.values()),
        repeats=listed.repeats,
        shifts=tuple(_shifts(look, source.classes, labeled, given & set(LABELED_SPLITS))),
        decoding=decoding,
    )
    return profile, look


@dataclass(frozen=True)
class _Listed:
    """All items of a dataset: splits as given, labels, hashed names and groups, and some of them, drawn evenly."""

    given: list[str | None]
    labels: Labels
    hashes: list[str]
    groups: "pd.Series[str]"
    drawn: list[tuple[int, Item]]
    repeats: int


@dataclass(frozen=True)
class _Header:
    """What an image file says before its pixels are decoded."""

    side: int
    area: int
    transparent: bool


def _read(items: Iterable[Item], group: int | None) -> _Listed:
    given: list[str | None] = []
    labels: list[int] = []
    hashes: list[str] = []
    groups: list[str] = []
    sized: dict[int, list[Path]] = defaultdict(list)
    digests: Counter[bytes] = Counter()
    drawn: dict[str | None, list[tuple[int, int, Item]]] = {split: [] for split in _QUOTA}
    for row, item in enumerate(items):
        hashes.append(hashlib.sha256(item.path.encode()).hexdigest())
        groups.append(MISSING if group is None else item.slices[group])
        split = item.split or ("unlabeled" if item.label == UNLABELED else None)
        given.append(split)
        labels.append(item.label)
        if isinstance(item.data, bytes):
            digests[hashlib.sha256(item.data).digest()] += 1
        else:
            with suppress(OSError):
                sized[item.data.stat().st_size].append(item.data)
        # A heap of the smallest keys: whichever images come, each is drawn as likely as the others of its split.
        heap = drawn[split]
        push = heapq.heappush if len(heap) < _QUOTA[split] else heapq.heappushpop
        push(heap, (-int(hashes[-1][:16], 16), row, item))
    digests.update(_digests(sized))
    chosen = sorted(((row, item) for heap in drawn.values() for _, row, item in heap), key=lambda one: hashes[one[0]])
    repeats = sum(count - 1 for count in digests.values())
    grouped = groups_of(pd.DataFrame({"group": groups}), "group")
    return _Listed(given, np.array(labels, np.int64), hashes, grouped, chosen, repeats)


def _digests(sized: Mapping[int, list[Path]]) -> Iterator[bytes]:
    """The hashes of files that have the size of another one, up to ``_COMPARED_BYTES`` of them."""
    read = 0
    for size, files in sorted(sized.items()):
        if len(files) > 1 and (read := read + size * len(files)) <= _COMPARED_BYTES:
            for file in files:
                with suppress(OSError, UnreadableImage), open_file(file) as content:
                    yield hashlib.file_digest(content, "sha256").digest()


def _header(item: Item) -> _Header | None:
    try:
        file = io.BytesIO(item.data) if isinstance(item.data, bytes) else open_file(item.data)
        with file, Image.open(file, formats=FORMATS) as image:
            return _Header(min(image.size), math.prod(image.size), image.has_transparency_data)
    except Exception:  # Pillow's readers raise whatever a broken byte leads them to, and ingest will say what
        return None


def _decode_some(
    drawn: Sequence[tuple[int, Item]],
    headers: Mapping[int, _Header],
    decode_part: Callable[[list[Item]], list[Decoded | None]],
    processes: int,
) -> dict[int, Decoded]:
    """Decode as many of the drawn images as are affordable, by their rows; unreadable ones are missing."""
    readable = [(row, item) for row, item in drawn if row in headers]
    areas = np.cumsum([headers[row].area for row, _ in readable])
    affordable = max(1, int(np.searchsorted(areas, _MEGAPIXELS * 1e6, "right")))
    items = [item for _, item in readable[:affordable]]
    parts = [items[begin : begin + _ITEMS_A_PART] for begin in range(0, len(items), _ITEMS_A_PART)]
    images = chain.from_iterable(share_out(decode_part, parts, len(parts), processes))
    return {row: image for (row, _), image in zip(readable, images, strict=False) if image is not None}


def _decode_part(items: list[Item], size: int, max_megapixels: float) -> list[Decoded | None]:
    return [_decoded(item, size, max_megapixels) for item in items]


def _decoded(item: Item, size: int, max_megapixels: float) -> Decoded | None:
    try:
        data = item.data if isinstance(item.data, bytes) else read_image(item.data, max_megapixels)
        return decode(data, 3, size, max_megapixels)
    except (UnreadableImage, OSError):
        return None


def _has_color(image: Pixels) -> bool:
    """Gray photographs are often stored as RGB, so that pixels decide."""
    return bool((image.max(axis=2) != image.min(axis=2)).any())


def _share(values: Iterable[bool]) -> float:
    return float(np.mean([*values] or [False]))


def _shifts(
    look: Look, classes: Sequence[str], labeled: Mapping[str, Sequence[int]], given: Collection[str]
) -> Iterator[str]:
    """Compare the source's own splits by the monitor's tests: those drawn by hash differ by chance alone."""
    samples = {
        split: Sample(
            tuple(classes),
            look.pixels.shape[1:],
            np.array(labeled[split], np.int64),
            statistics(look.pixels[look.splits == split]),
            *NO_PREDICTIONS,
        )
        for split in LABELED_SPLITS
        if split in given
    }
    for split in ("val", "test"):
        if {"train", split} <= samples.keys():
            for test in compare(samples["train"], samples[split], _SHIFT_ALPHA):
                if test.differs and test.distance >= _SHIFT:
                    yield f"{test.name} of {split} is not that of train (by {test.distance:.2f})"
