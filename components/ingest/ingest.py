"""From a dataset in any format to the artifacts that every later stage reads."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.artifacts import atomic, translate_os_error, write_json
from components.core.contract import SPLITS
from components.core.images.shards import UNLABELED, open_shard
from components.ingest import sheet
from components.ingest.checks import drop_repeats, refuse_unlearnable, refuse_unreadable
from components.ingest.decoding import Failure, decode_all, level_columns
from components.ingest.shards import channel_moments, fingerprint, ids_of, write_shards
from components.ingest.slices import columns_of
from components.ingest.source import open_source
from components.ingest.splits import assign

MANIFEST_COLUMNS = (
    *("path", "split", "row", "label", "class_name", "width", "height", "mode", "format"),
    *("sha256", "phash", "pixel_std", "bytes"),
)
_ROWS_A_GROUP = 65536
Storage = Literal["auto", "decoded", "encoded"]


@dataclass(frozen=True)
class Ingested:
    """The outcome of ingesting a dataset."""

    dataset: dict[str, Any]  # the contents of dataset.json
    unreadable: int
    repeats: int  # images left out because their split holds the same content already
    ignored: list[str]  # files that are not pictures


def ingest(
    source: Path,
    out: Path,
    image_size: int,
    channels: int,
    storage: Storage,
    decoded_max_gb: float,
    val: float,
    test: float,
    max_unreadable: float,
    max_megapixels: float,
    threads: int,
    slices: Sequence[str] = (),
) -> Ingested:
    """Check a dataset and write its shards, manifest, facts and quarantine.

    Args:
        source: in any format that :mod:`components.ingest.source` lists.
        out: the folder that receives the artifacts.
        image_size: side of the stored square, in pixels.
        channels: 1 or 3.
        storage, decoded_max_gb: how the images are kept; see :func:`keeps_encoded`.
        val, test: shares of the training images that become a split which the source lacks.
        max_unreadable: share of images that may be unreadable.
        max_megapixels: larger images count as unreadable.
        threads: how many images are decoded at the same time; 0 for one on each core.
        slices: columns of the source that the manifest keeps, as ``slice:<name>``.

    Raises:
        UserError: the dataset is missing, damaged, or can't train a classifier.
    """
    dataset, kept = open_source(source, slices), columns_of(slices)
    shape = (image_size, image_size, channels)
    encoded = keeps_encoded(storage, dataset.count, shape, decoded_max_gb)
    with _building(out) as building:
        scratch = building / "images"
        with scratch.open("wb") as file:
            frame, failures = decode_all(
                dataset.items,
                dataset.count,
                file,
                channels,
                image_size,
                max_megapixels,
                encoded,
                threads or _cores(),
                kept,
            )
        quarantine = out / "quarantine.parquet"
        if len(failures) > max_unreadable * dataset.count:
            _write_quarantine(quarantine, failures, [])
        refuse_unreadable(failures, dataset.count, max_unreadable, source, quarantine)
        frame["split"] = pd.Categorical(assign(frame["given_split"], ids_of(frame["sha256"]), val, test), SPLITS)
        frame, repeats = drop_repeats(frame)
        refuse_unlearnable(frame, dataset.classes, source)
        frame = write_shards(frame, scratch, shape, encoded, building / "shards")
        scratch.unlink()
        _write_manifest(building / "manifest.parquet", frame, dataset.classes, kept)
        _write_quarantine(building / "quarantine.parquet", failures, repeats)
        facts = _facts(source, dataset.classes, frame, image_size, channels)
        write_json(building / "dataset.json", facts)
        sheet.samples(open_shard(building / "shards" / "train"), dataset.classes, building / "samples.png")
        sheet.quarantine([(f.path, f.reason) for f in (*failures, *repeats)], building / "quarantine.png")
        _publish(building, out)
    return Ingested(facts, len(failures), len(repeats), dataset.ignored)


def keeps_encoded(storage: Storage, count: int, shape: tuple[int, int, int], decoded_max_gb: float) -> bool:
    """Decide whether images are kept as files, or as pixels.

    Pixels are read fastest as long as they fit into the memory of the machine that trains. ``auto`` limits their size
    by a param, not by the memory or disk of this machine: DVC keys every later stage by the shards, and two machines
    that chose differently would train everything twice. The pixels, and so every result, are the same to the bit
    either way. ``decoded_max_gb`` counts 10^9 bytes.
    """
    return storage == "encoded" or (storage == "auto" and count * math.prod(shape) > decoded_max_gb * 1e9)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder next to the artifacts, so that they appear complete or not at all."""
    building = out / ".building"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        yield building
    except OSError as error:
        raise translate_os_error(error, out) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _publish(building: Path, out: Path) -> None:
    """Move everything into place; dataset.json, which every reader needs, goes first and comes back last."""
    names = [
        *(f"shards/{split}" for split in SPLITS),
        *("manifest.parquet", "quarantine.parquet", "samples.png", "quarantine.png", "dataset.json"),
    ]
    for name in reversed(names):
        old = out / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    (out / "shards").mkdir(exist_ok=True)
    for name in names:
        os.replace(building / name, out / name)


def _write_manifest(path: Path, frame: pd.DataFrame, classes: list[str], slices: list[str]) -> None:
    # A group of rows at a time: the words of a manifest take ten times the memory of its numbers.
    names = pd.Series([*classes, None], dtype="str")

    def group(begin: int) -> pa.Table:
        rows = frame.iloc[begin : begin + _ROWS_A_GROUP]
        labels = rows["label"].astype("Int64").mask(rows["label"] == UNLABELED)
        words = {name: rows[name].astype("str") for name in ("split", "mode", "format", *slices)}
        # The last name belongs to label -1.
        rows = rows.assign(**words, label=labels, class_name=names.take(rows["label"]).array)
        return pa.Table.from_pandas(rows[[*MANIFEST_COLUMNS, *slices]], preserve_index=False)

    with pq.ParquetWriter(path, group(0).schema) as writer:
        for begin in range(0, len(frame), _ROWS_A_GROUP):
            writer.write_table(group(begin))


def _write_quarantine(path: Path, unreadable: list[Failure], repeats: list[Failure]) -> None:
    rows = [(f.path, f.reason, "unreadable") for f in unreadable] + [(f.path, f.reason, "repeat") for f in repeats]
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=["path", "reason", "kind"], dtype="string").to_parquet(temporary, index=False)


def _facts(source: Path, classes: list[str], frame: pd.DataFrame, image_size: int, channels: int) -> dict[str, Any]:
    mean, std = channel_moments(frame.loc[frame["split"] == "train", level_columns(channels)], image_size**2)
    parts = {split: frame.loc[frame["split"] == split, ["sha256", "label"]] for split in SPLITS}
    fingerprints = {split: fingerprint(part["sha256"], part["label"]) for split, part in parts.items()}
    whole = json.dumps({"classes": classes, "fingerprints": fingerprints}, sort_keys=True)
    return {
        "name": source.resolve().stem if source.is_file() else source.resolve().name,
        "source": str(source),
        "classes": classes,
        "image_size": image_size,
        "channels": channels,
        "mean": [round(value, 6) for value in mean],
        "std": [round(value, 6) for value in std],
        "counts": {split: len(part) for split, part in parts.items()},
        "fingerprints": fingerprints,
        "fingerprint": hashlib.sha256(whole.encode()).hexdigest(),
    }
