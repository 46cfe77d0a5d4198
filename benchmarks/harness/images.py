"""Images from Parquet files in the Hugging Face layout, as ``ingest`` would leave them."""

import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from reflux.components.core.data.shards import UNLABELED, Shard

SIZE = 28


def read_split(folder: Path, split: str, count: int | None = None) -> Shard:
    """Read the first ``count`` images of ``<folder>/<split>.parquet``.

    Raises:
        SystemExit: there is no such file.
    """
    path = folder / f"{split}.parquet"
    if not path.is_file():
        sys.exit(f"Error: {path} does not exist: --data has train.parquet and test.parquet, see benchmarks/README.md.")
    return read_images([path], count)


def read_images(files: Sequence[Path], count: int | None = None) -> Shard:
    """Read the first ``count`` images of some files, in gray and with ``SIZE`` pixels a side."""
    table = pa.concat_tables((pq.read_table(file) for file in files), promote_options="permissive").slice(0, count)
    raw = (Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist())
    pixels = np.stack([np.asarray(image.convert("L").resize((SIZE, SIZE))) for image in raw])[..., None]
    labels = table["label"].fill_null(UNLABELED).to_numpy().astype(np.int64)
    hashes = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in pixels)
    return Shard(pixels, labels, np.frombuffer(hashes, "<u8"))


def part(images: Shard, rows: npt.NDArray[Any] | slice) -> Shard:
    """Some of the images."""
    return Shard(images.images[rows], images.labels[rows], images.ids[rows])
