"""The images of one split as the files they came as, decoded on access.

They lie one after the other in ``images.bin``; row i is the bytes from ``offsets[i]`` to ``offsets[i + 1]``.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.data.processes import decoding_processes
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.pixels import UnreadableImage, fitted

Rows = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class EncodedImages:
    """Encoded images with the interface of decoded ones: the same pixels to the bit, for a fraction of the disk.

    With ``workers`` the images of a batch are decoded by that many processes, which all splits share. The decoding of a
    batch is a pure function of its rows, so that the number of workers changes nothing but the time.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, workers: int = 0) -> None:
        facts = read_json(folder / "encoding.json")
        self._folder, self._workers = folder, workers
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self.shape = (len(self._offsets) - 1, facts["image_size"], facts["image_size"], facts["channels"])
        size = (folder / "images.bin").stat().st_size
        if size != self._offsets[-1]:
            raise ValueError(f"images.bin has {size:,} bytes where offsets.npy says {int(self._offsets[-1]):,}")
        # A file of no bytes can't be mapped.
        self._data = np.memmap(folder / "images.bin", np.uint8, "r") if size else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Rows) -> Pixels:
        rows = rows_of(index, len(self))
        if len(unique := np.unique(rows)) < len(rows):
            # Several views of one image are read at once: it is decoded once for all of them.
            return self[unique][np.searchsorted(unique, rows)]
        if not self._workers or not len(rows):
            return self.decode(rows)
        parts = np.array_split(rows, min(self._workers, len(rows)))
        pool = _pool(self._workers)
        try:
            return np.concatenate(list(pool.map(_decode, [str(self._folder)] * len(parts), parts)))
        except BrokenProcessPool:
            _pool.cache_clear()
            raise UserError(
                "A process that decodes images was killed, perhaps for lack of memory: lower run.workers and run "
                "again; training goes on from its last checkpoint."
            ) from None

    def decode(self, rows: Rows) -> Pixels:
        """Decode some rows in this process.

        Raises:
            UserError: a row is no longer the image that was ingested.
        """
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows):
            content = self._data[self._offsets[row] : self._offsets[row + 1]].tobytes()
            try:
                pixels[place] = fitted(content, self.shape[3], self.shape[1])
            except UnreadableImage as error:
                raise UserError(
                    f"Image {row} of {self._folder} {error}: delete the folder and run `reflux run` to ingest again."
                ) from None
        return pixels


def rows_of(index: slice | Rows, count: int) -> Rows:
    """Resolve an index of ``count`` images to row numbers."""
    return np.arange(*index.indices(count)) if isinstance(index, slice) else np.asarray(index, np.int64)


def write_encoding(folder: Path, ends: Rows, image_size: int, channels: int) -> None:
    """Write what :class:`EncodedImages` needs next to ``images.bin``, where each image ends at ``ends`` [N]."""
    np.save(folder / "offsets.npy", np.concatenate([[0], ends]).astype(np.int64))
    write_json(folder / "encoding.json", {"image_size": image_size, "channels": channels})


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    return decoding_processes(workers)


@lru_cache(maxsize=8)
def _opened(folder: str) -> EncodedImages:
    return EncodedImages(Path(folder))


def _decode(folder: str, rows: Rows) -> Pixels:
    return _opened(folder).decode(rows)
