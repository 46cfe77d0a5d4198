"""From a dataset in any form to the artifacts that every later stage reads."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.core.artifacts import atomic, mendable, write_json
from components.ingest.checks import drop_repeats, refuse_unlearnable, refuse_unreadable
from components.ingest.decoding import Failure, decode_all
from components.ingest.items import UNLABELED
from components.ingest.shards import channel_moments, fingerprint, ids_of, write_shards
from components.ingest.source import open_source
from components.ingest.splits import SPLITS, assign

MANIFEST_COLUMNS = (
    *("path", "split", "row", "label", "class_name", "width", "height", "mode", "format"),
    *("sha256", "phash", "pixel_std", "bytes"),
)


@dataclass(frozen=True)
class Ingested:
    """What became of a dataset.

    Attributes:
        dataset: the contents of ``dataset.json``.
        unreadable: images that could not be used.
        repeats: images left out because their split holds the same content already.
        ignored: files that are no pictures.
    """

    dataset: dict[str, Any]
    unreadable: int
    repeats: int
    ignored: list[str]


def ingest(
    source: Path,
    out: Path,
    image_size: int,
    channels: int,
    val: float,
    test: float,
    max_unreadable: float,
    max_megapixels: float,
    threads: int,
) -> Ingested:
    """Decode a dataset and write its shards, manifest, facts and quarantine.

    Args:
        source: class folders, a manifest, or Parquet in the Hugging Face layout.
        out: the folder that receives the artifacts.
        image_size: side of the stored square, in pixels.
        channels: 1 or 3.
        val: share of the training images that is taken for validation when the source brings no such split.
        test: likewise for the test split.
        max_unreadable: share of images that may be unreadable.
        max_megapixels: larger images count as unreadable.
        threads: how many images are decoded at the same time; 0 for one on each core.

    Raises:
        UserError: the dataset is missing, damaged, or can't train a classifier.
    """
    dataset = open_source(source)
    with _building(out) as building:
        scratch = building / "pixels"
        with scratch.open("wb") as pixels:
            frame, failures = decode_all(
                dataset.items, dataset.count, pixels, channels, image_size, max_megapixels, threads or _cores()
            )
        quarantine = out / "quarantine.parquet"
        if len(failures) > max_unreadable * dataset.count:
            _write_quarantine(quarantine, failures, [])
        refuse_unreadable(failures, dataset.count, max_unreadable, source, quarantine)
        frame["source_row"] = np.arange(len(frame))
        given = [None if pd.isna(split) else split for split in frame["given_split"]]
        frame["split"] = assign(given, ids_of(frame["sha256"]), val, test)
        frame, repeats = drop_repeats(frame)
        refuse_unlearnable(frame, dataset.classes, source)
        frame = write_shards(frame, scratch, (image_size, image_size, channels), building / "shards")
        scratch.unlink()
        _write_manifest(building / "manifest.parquet", frame, dataset.classes)
        _write_quarantine(building / "quarantine.parquet", failures, repeats)
        facts = _facts(source, dataset.classes, frame, building / "shards", image_size, channels)
        write_json(building / "dataset.json", facts)
        _publish(building, out)
    return Ingested(facts, len(failures), len(repeats), dataset.ignored)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder beside the artifacts, so that they appear whole or not at all."""
    building = out / ".building"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        yield building
    except OSError as error:
        raise mendable(error, out) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _publish(building: Path, out: Path) -> None:
    """Move everything into place; dataset.json, which every reader needs, goes first and comes back last."""
    names = [
        *(f"shards/{split}" for split in SPLITS),
        *("manifest.parquet", "quarantine.parquet", "dataset.json"),
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


def _write_manifest(path: Path, frame: pd.DataFrame, classes: list[str]) -> None:
    labels = frame["label"].astype("Int64").mask(frame["label"] == UNLABELED)
    names = [None if label == UNLABELED else classes[label] for label in frame["label"]]
    manifest = frame.assign(label=labels, class_name=pd.Series(names, index=frame.index, dtype="string"))
    manifest[list(MANIFEST_COLUMNS)].to_parquet(path, index=False)


def _write_quarantine(path: Path, unreadable: list[Failure], repeats: list[Failure]) -> None:
    rows = [(f.path, f.reason, "unreadable") for f in unreadable] + [(f.path, f.reason, "repeat") for f in repeats]
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=["path", "reason", "kind"], dtype="string").to_parquet(temporary, index=False)


def _facts(
    source: Path, classes: list[str], frame: pd.DataFrame, shards: Path, image_size: int, channels: int
) -> dict[str, Any]:
    mean, std = channel_moments(np.load(shards / "train" / "images.npy", mmap_mode="r"))
    parts = {split: frame[frame["split"] == split] for split in SPLITS}
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
