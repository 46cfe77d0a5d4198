"""Writes images as shards, one folder per split."""

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reflux.components.core.contract import SPLITS
from reflux.components.core.data.shards import ids_of
from reflux.components.modalities.image.encoded import write_encoding

_ROWS_AT_ONCE = 4096


def write_shards(
    frame: pd.DataFrame, scratch: Path, shape: tuple[int, int, int], encoded: bool, folder: Path
) -> pd.DataFrame:
    """Write the shards of all splits, rows in the order of their ids.

    Args:
        frame: an image a row with ``split``, ``label``, ``sha256``, ``path``, and where it ``begin``s and ``end``s in
            the scratch file.
        scratch: all images, as pixels of ``shape`` or as the files they came as.
        shape: [H, W, C] of an image.
        encoded: whether they are files.
        folder: receives ``<split>/{labels,ids}.npy``, and ``images.npy`` or what
            :class:`reflux.components.modalities.image.encoded.EncodedImages` reads.

    Returns:
        The frame in the order of the shards, split by split, with ``row``, its row in its split's shard.
    """
    # Images of the same content are sorted by label and path, so that no file system decides their order.
    table = pa.table({name: frame[name] for name in ("sha256", "label", "path")})
    order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names]).to_numpy()
    splits = pd.Categorical(frame["split"], SPLITS).codes
    frame = frame.iloc[order[np.argsort(splits[order], kind="stable")]].reset_index(drop=True)
    rows = np.zeros(len(frame), np.int64)
    for split in SPLITS:
        mine = np.flatnonzero(frame["split"] == split)
        rows[mine] = np.arange(len(mine))
        here = folder / split
        here.mkdir(parents=True)
        begins, ends = (frame[name].to_numpy(np.int64)[mine] for name in ("begin", "end"))
        _write_images(here, scratch, begins, ends, shape, encoded)
        np.save(here / "labels.npy", frame["label"].to_numpy(np.int64)[mine])
        np.save(here / "ids.npy", ids_of(frame["sha256"].iloc[mine]))
    return frame.assign(row=rows)


def channel_moments(levels: pd.DataFrame, pixels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, on a 0..1 scale, of images of ``pixels`` pixels.

    ``levels`` are the :func:`reflux.components.stages.ingest.decoding.level_columns` of each image.
    """
    count = len(levels) * pixels
    # In whole numbers of any size: nothing is rounded before the division.
    totals = [int(total) for total in levels.sum()]
    channels = len(totals) // 2
    pairs = zip(totals[:channels], totals[channels:], strict=True)
    moments = [(total / count / 255, math.sqrt(count * squares - total**2) / count / 255) for total, squares in pairs]
    # A channel of one value (the blue of red pictures) must not divide by zero: one level of 255 is the least step.
    return [mean for mean, _ in moments], [max(std, 1 / 255) for _, std in moments]


def fingerprint(sha256: Sequence[str] | pd.Series, labels: Sequence[int] | pd.Series) -> str:
    """A split's fingerprint: the sha256 over its images' content hashes and labels, in any order."""
    columns = (pa.array(values).cast(pa.large_string()) for values in (sha256, labels))
    lines = pc.binary_join_element_wise(*columns, pa.scalar(" ", pa.large_string()))
    total = hashlib.sha256()
    ordered = lines.take(pc.sort_indices(lines))
    for begin in range(0, len(ordered), _ROWS_AT_ONCE):
        total.update("".join(f"{line}\n" for line in ordered[begin : begin + _ROWS_AT_ONCE].to_pylist()).encode())
    return total.hexdigest()


def _write_images(
    folder: Path,
    scratch: Path,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    shape: tuple[int, int, int],
    encoded: bool,
) -> None:
    # Written through a file and not a memory map: on a full disk a map ends in SIGBUS, a write in an error.
    with (folder / ("images.bin" if encoded else "images.npy")).open("wb") as file, scratch.open("rb") as images:
        if encoded:
            write_encoding(folder, np.cumsum(ends - begins), shape[0], shape[2])
        else:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(begins), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            file.write(os.pread(images.fileno(), end - begin, begin))
