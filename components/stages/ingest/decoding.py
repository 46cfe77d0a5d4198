"""Decodes every image once, in parallel, and keeps the pixels on disk: a dataset may be larger than the memory."""

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa

from reflux.components.core.data.processes import share_out
from reflux.components.core.runtime import progress
from reflux.components.modalities.image.files import read_image
from reflux.components.modalities.image.pixels import UnreadableImage, decode
from reflux.components.stages.ingest.items import Item

# Handed over one by one, at 0.1 ms each, small images would take half as long again: they are decoded in 0.2 to 0.3 ms.
_BATCH = 32
_BATCH_BYTES = 64 * 2**20  # of images in tables, as some batches are in memory at a time
_ROWS_A_CHUNK = 4096
_word = pa.dictionary(pa.int32(), pa.string())
_FACTS = (
    *(("path", pa.string()), ("given_split", _word), ("label", pa.int64())),
    *(("width", pa.int64()), ("height", pa.int64()), ("mode", _word), ("format", _word)),
    *(("sha256", pa.string()), ("phash", pa.string()), ("pixel_std", pa.float64()), ("bytes", pa.int64())),
    *(("begin", pa.int64()), ("end", pa.int64())),
)
Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that is left out, the reason as a sentence, and its kind, as in ``quarantine.csv``."""

    path: str
    reason: str
    kind: str


class Columns:
    """Rows kept as columns: an image's facts take a fraction of the memory that they take as Python's objects."""

    def __init__(self, channels: int, words: Sequence[str]) -> None:
        levels = [(name, pa.int64()) for name in level_columns(channels)]
        self._schema = pa.schema([*_FACTS, *levels, *((name, _word) for name in words)])
        self._chunks: list[pa.RecordBatch] = []
        self._rows: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= _ROWS_A_CHUNK:
            self._close_chunk()

    def frame(self) -> pd.DataFrame:
        """All rows."""
        self._close_chunk()
        table = pa.Table.from_batches(self._chunks, self._schema)
        self._chunks = []
        return table.unify_dictionaries().to_pandas(split_blocks=True, self_destruct=True)

    def _close_chunk(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._chunks.append(pa.record_batch(arrays, schema=self._schema))
            self._rows = []


def level_columns(channels: int) -> list[str]:
    """The columns with the sums of an image's levels, then of their squares, one a channel."""
    return [f"{kind}_{channel}" for kind in ("sum", "squares") for channel in range(channels)]


def decode_all(
    items: Iterable[Item],
    count: int,
    scratch: Path,
    channels: int,
    image_size: int,
    min_size_px: int,
    max_megapixels: float,
    encoded: bool,
    processes: int,
    slices: Sequence[str] = (),
) -> tuple[pd.DataFrame, list[Failure]]:
    """Decode all items, which are ``count``, in several processes if it takes long.

    Args:
        items: the dataset.
        scratch: a file that takes each image, in no particular order: its pixels, uint8 [image_size, image_size,
            channels], or the file that it came as, if ``encoded``.
        min_size_px: images that are narrower or lower fail.
        max_megapixels: larger images fail without being decoded.
        slices: the names of the items' slices.

    Returns:
        A row for each decoded image in the order of ``items``: the manifest's columns, where it ``begin``s and ``end``s
        in the scratch file, the ``level_columns`` and the slices; and the failures.

    Raises:
        UserError: a process was killed.
    """
    decode_item = partial(
        _decode,
        channels=channels,
        image_size=image_size,
        min_size_px=min_size_px,
        max_megapixels=max_megapixels,
        encoded=encoded,
    )
    work = partial(_decode_batch, scratch, decode_item)
    scratch.touch()
    rows = Columns(channels, slices)
    failures: list[Failure] = []
    with progress.bar("ingest", "decode", count) as bar:
        for results in share_out(work, _batches(items), math.ceil(count / _BATCH), processes):
            bar.advance(_collect(results, rows, failures))
    return rows.frame(), failures


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data) if isinstance(item.data, bytes) else 0
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _decode_batch(
    scratch: Path, decode_item: Callable[[Item, BinaryIO], Row | Failure], batch: list[Item]
) -> list[Row | Failure]:
    # All processes append to the one file: each image is in memory no longer than it is being decoded.
    with scratch.open("ab", buffering=0) as kept:
        return [decode_item(item, kept) for item in batch]


def _decode(
    item: Item,
    kept: BinaryIO,
    channels: int,
    image_size: int,
    min_size_px: int,
    max_megapixels: float,
    encoded: bool,
) -> Row | Failure:
    try:
        content = read_image(item.data, max_megapixels) if isinstance(item.data, Path) else item.data
        image = decode(content, channels, image_size, max_megapixels)
    except UnreadableImage as error:
        return Failure(item.path, f"{item.path} {error}.", "unreadable")
    except FileNotFoundError:
        return Failure(item.path, f"{item.path} does not exist.", "unreadable")
    except OSError as error:
        return Failure(item.path, f"{item.path} can't be read ({error.strerror}).", "unreadable")
    if min(image.width, image.height) < min_size_px:
        size = f"{image.width} x {image.height} pixels"
        return Failure(
            item.path, f"{item.path} has {size}, and ingest.min_size_px asks for {min_size_px} each way.", "small"
        )
    place = _append(kept, content if encoded else image.pixels.tobytes())
    levels = image.pixels.reshape(-1, channels).astype(np.int64)
    sums = (*levels.sum(axis=0).tolist(), *(levels**2).sum(axis=0).tolist())
    facts = (image.width, image.height, image.mode, image.format, image.sha256, image.phash, image.pixel_std)
    return (item.path, item.split, item.label, *facts, len(content), *place, *sums, *item.slices)


def _append(file: BinaryIO, data: bytes) -> tuple[int, int]:
    """Write ``data`` at the end of a file that other processes append to, too; returns where it begins and ends.

    Raises:
        OSError: there is no room for all of it.
    """
    if file.write(data) < len(data):  # a disk that is just full takes a part
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    end = file.tell()
    return end - len(data), end


def _collect(results: list[Row | Failure], rows: Columns, failures: list[Failure]) -> int:
    failures += [result for result in results if isinstance(result, Failure)]
    rows.add([result for result in results if not isinstance(result, Failure)])
    return len(results)
