"""Reads every image once, in parallel, and keeps the pixels on disk: a dataset may be larger than the memory."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from components.core import progress
from components.core.pixels import Decoded, UnreadableImage, decode
from components.ingest.items import Item

# Small images take a fraction of a millisecond: handed out one by one, the threads would wait for each other.
_BATCH = 32
_BATCHES_AHEAD = 4
COLUMNS = ("path", "given_split", "label", "width", "height", "mode", "format", "sha256", "phash", "pixel_std", "bytes")


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that can't be used, and why, as a sentence about it."""

    path: str
    reason: str


def decode_all(
    items: Iterable[Item],
    count: int,
    pixels: BinaryIO,
    channels: int,
    image_size: int,
    max_megapixels: float,
    threads: int,
) -> tuple[pd.DataFrame, list[Failure]]:
    """Decode all items.

    Args:
        items: the dataset.
        count: how many items there are, for the progress bar.
        pixels: takes the pixels of each row of the returned frame, uint8 [image_size, image_size, channels].
        channels: 1 or 3.
        image_size: side of the stored square, in pixels.
        max_megapixels: larger images fail unread.
        threads: how many decode at the same time.

    Returns:
        A row for each decoded image with ``COLUMNS``, in the order of ``items``; and what failed.
    """

    def work(batch: list[Item]) -> list[tuple[Item, int, Decoded | str]]:
        return [(item, *_decode(item.data, channels, image_size, max_megapixels)) for item in batch]

    rows: list[tuple[object, ...]] = []
    failures: list[Failure] = []
    with progress.bar("ingest", "decode", count) as bar, ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[tuple[Item, int, Decoded | str]]]] = deque()
        try:
            for batch in _batches(items):
                waiting.append(pool.submit(work, batch))
                if len(waiting) >= threads * _BATCHES_AHEAD:
                    bar.advance(_collect(waiting.popleft().result(), pixels, rows, failures))
            while waiting:
                bar.advance(_collect(waiting.popleft().result(), pixels, rows, failures))
        finally:
            pool.shutdown(cancel_futures=True)
    return pd.DataFrame(rows, columns=list(COLUMNS)), failures


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _decode(data: bytes | Path, channels: int, image_size: int, max_megapixels: float) -> tuple[int, Decoded | str]:
    try:
        content = data.read_bytes() if isinstance(data, Path) else data
        return len(content), decode(content, channels, image_size, max_megapixels)
    except UnreadableImage as error:
        return 0, str(error)
    except FileNotFoundError:
        return 0, "does not exist"
    except OSError as error:
        return 0, f"can't be read ({error.strerror})"


def _collect(
    results: list[tuple[Item, int, Decoded | str]],
    pixels: BinaryIO,
    rows: list[tuple[object, ...]],
    failures: list[Failure],
) -> int:
    for item, size, found in results:
        if isinstance(found, str):
            failures.append(Failure(item.path, f"{item.path} {found}."))
            continue
        pixels.write(found.pixels.tobytes())
        facts = (found.width, found.height, found.mode, found.format, found.sha256, found.phash, found.pixel_std)
        rows.append((item.path, item.split, item.label, *facts, size))
    return len(results)
