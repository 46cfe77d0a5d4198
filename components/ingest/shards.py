"""Writes decoded images as shards, a folder a split."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.ingest.splits import SPLITS

_ROWS_AT_ONCE = 1024


def write_shards(frame: pd.DataFrame, pixels: Path, shape: tuple[int, int, int], folder: Path) -> pd.DataFrame:
    """Write the shards of all splits, rows in the order of their ids.

    Args:
        frame: an image a row with ``split``, ``label``, ``sha256``, ``path`` and ``source_row``, its row in ``pixels``.
        pixels: uint8 pixels of all decoded images, one after the other.
        shape: [H, W, C] of an image.
        folder: receives ``<split>/{images,labels,ids}.npy``.

    Returns:
        The frame in the order of the shards, split by split, with ``row``, its row in its split's shard.
    """
    parts = []
    for split in SPLITS:
        # Images of the same content come last to label and path, so that no file system decides their order.
        part = frame[frame["split"] == split].sort_values(["sha256", "label", "path"], ignore_index=True)
        part["row"] = np.arange(len(part))
        parts.append(part)
        here = folder / split
        here.mkdir(parents=True)
        _write_images(here / "images.npy", pixels, part["source_row"].to_numpy(np.int64), shape)
        np.save(here / "labels.npy", part["label"].to_numpy(np.int64))
        np.save(here / "ids.npy", ids_of(part["sha256"]))
    return pd.concat(parts, ignore_index=True)


def ids_of(sha256: Iterable[str]) -> NDArray[np.uint64]:
    """The first eight bytes of each content hash, big-endian."""
    return np.array([int(digest[:16], 16) for digest in sha256], dtype=np.uint64)


def channel_moments(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of [N, H, W, C] pixels, on a 0..1 scale."""
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), _ROWS_AT_ONCE):
        part = images[start : start + _ROWS_AT_ONCE]
        for channel in range(channels):
            histogram[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    shares = histogram / histogram.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))
    # A channel of one value (the blue of red pictures) must not divide by zero: one level of 255 is the least step.
    return mean.tolist(), np.maximum(std, 1 / 255).tolist()


def fingerprint(sha256: Iterable[str], labels: Iterable[int]) -> str:
    """What identifies a split: the sha256 over its images' content hashes and labels, in any order."""
    lines = sorted(f"{digest} {label}\n" for digest, label in zip(sha256, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write_images(path: Path, pixels: Path, rows: NDArray[np.int64], shape: tuple[int, int, int]) -> None:
    # Written through a file and not a memory map: on a full disk a map ends in SIGBUS, a write in an error.
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        if len(rows):
            decoded = np.memmap(pixels, np.uint8, "r").reshape(-1, *shape)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                file.write(decoded[rows[start : start + _ROWS_AT_ONCE]].tobytes())
