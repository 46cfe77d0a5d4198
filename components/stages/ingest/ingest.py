"""From a dataset in any format to the artifacts that every later stage reads."""

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.artifacts import as_cell, atomic, translate_os_error, write_json
from reflux.components.core.contract import SPLITS
from reflux.components.core.data.shards import UNLABELED, open_shard
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.modalities.image import sheet
from reflux.components.stages.ingest import croissant, groups
from reflux.components.stages.ingest.checks import (
    drop_overlaps,
    drop_repeats,
    drop_two_labels,
    refuse_damaged,
    refuse_unlearnable,
)
from reflux.components.stages.ingest.decoding import Failure, decode_all, level_columns
from reflux.components.stages.ingest.domains import in_order_of
from reflux.components.stages.ingest.shards import channel_moments, fingerprint, write_shards
from reflux.components.stages.ingest.slices import SLICES, columns_of
from reflux.components.stages.ingest.source import open_source
from reflux.components.stages.ingest.splits import assign, drawn

MANIFEST_COLUMNS = (
    *("path", "split", "row", "label", "class_name", "width", "height", "mode", "format"),
    *("sha256", "phash", "pixel_std", "bytes", groups.COLUMN),
)
# In a file of their own: what trains depends on them, and not on counts and fingerprints of splits it never reads.
TRAINING_FACTS = ("classes", "image_size", "channels", "mean", "std")
_ROWS_A_GROUP = 65536
Storage = Literal["auto", "decoded", "encoded"]


@dataclass(frozen=True)
class Ingested:
    """The outcome of ingesting a dataset."""

    dataset: dict[str, Any]  # the contents of dataset.json
    left_out: Counter[str]  # how many images of each kind, see reflux.components.stages.ingest.checks.WORDS
    ignored: list[str]  # files that are not pictures
    doubts: tuple[str, ...]  # what the data's owner may not have meant


def ingest(
    source: Path,
    out: Path,
    image_size: int,
    channels: int,
    storage: Storage,
    decoded_max_gb: float,
    val: float,
    test: float,
    max_quarantined: float,
    min_size_px: int,
    max_megapixels: float,
    threads: int,
    slices: Sequence[str] = (),
    group: str | None = None,
    classes: Sequence[str] | None = None,
    pretraining: str = "none",
    param: str = "ingest.source",
    named_by: str = SLICES,
    license_: str | None = None,
) -> Ingested:
    """Check a dataset and write its shards, manifest, facts and quarantine.

    Args:
        source: in any format that :mod:`reflux.components.stages.ingest.source` lists.
        out: the folder that receives the artifacts.
        image_size, channels: of the stored square: its side in pixels; 1 or 3.
        storage, decoded_max_gb: how the images are kept; see :func:`keeps_encoded`.
        val, test: shares of the training images that become a split which the source lacks.
        max_quarantined: share of images that may be set aside as damaged, 0..1.
        min_size_px: images that are narrower or lower count as damaged.
        max_megapixels: larger images count as unreadable.
        threads: how many images are decoded at the same time, each in a process; 0 for one on each core.
        slices: columns of the source that the manifest keeps, as ``slice:<name>``.
        group: the column of the source whose equal values are on one side of every split.
        classes: those that it must have, which then are in this order; None takes its own.
        pretraining: ``pretrain.mode``; ``pretraining.json`` says what of the dataset decides the weights in this mode.
        param: the one that names the dataset, for messages.
        named_by: the one that names the ``slices``, likewise.
        license_: of the dataset, for its description.

    Raises:
        UserError: the dataset is missing, damaged, or can't train a classifier of these classes.
    """
    listing, kept = open_source(source, slices, group, param, named_by), columns_of(slices)
    dataset = in_order_of(classes, listing, source)
    grouped = _group_column(group, slices)
    columns = [*kept, groups.COLUMN] if grouped == groups.COLUMN else kept
    shape, cores = (image_size, image_size, channels), threads or usable_cores()
    encoded = keeps_encoded(storage, dataset.count, shape, decoded_max_gb)
    with _building(out) as building:
        scratch = building / "images"
        sizes = (image_size, min_size_px, max_megapixels)
        frame, left_out = decode_all(dataset.items, dataset.count, scratch, channels, *sizes, encoded, cores, columns)
        frame, contradictions = drop_two_labels(frame, dataset.classes)
        left_out += contradictions
        _refuse_damaged(left_out, dataset.count, max_quarantined, source, out / "quarantine.csv")
        frame, others = _split(frame, source, group or "", grouped, val, test)
        frame, repeats = drop_repeats(frame)
        left_out += others + repeats
        taken = drawn(frame["given_split"], val, test)
        refuse_unlearnable(frame, dataset.classes, source, taken, labels_needed=param != "ingest.source")
        frame = write_shards(frame, scratch, shape, encoded, building / "shards")
        scratch.unlink()
        facts = _facts(source, dataset.classes, frame, image_size, channels)
        _describe(building, frame, facts, kept, left_out)
        write_json(building / "pretraining.json", pretraining_facts(facts, pretraining))
        croissant.write(building, source, facts, frame["path"], license_)
        _publish(building, out)
    return Ingested(facts, Counter(failure.kind for failure in left_out), dataset.ignored, dataset.doubts)


def _group_column(group: str | None, slices: Sequence[str]) -> str | None:
    """The manifest's column of the group: its slice's, or one of its own after the slices."""
    if group is None:
        return None
    return columns_of([group])[0] if group in slices else groups.COLUMN


def _refuse_damaged(left_out: list[Failure], count: int, limit: float, source: Path, quarantine: Path) -> None:
    """Stop if too many images were set aside, which then are listed in the ``quarantine`` file."""
    if len(left_out) > limit * count:
        _write_quarantine(quarantine, left_out)
    refuse_damaged(left_out, count, limit, source, quarantine)


def _split(
    frame: pd.DataFrame, source: Path, group: str, grouped: str | None, val: float, test: float
) -> tuple[pd.DataFrame, list[Failure]]:
    """Give every image its group and its split.

    Args:
        frame: the decoded images.
        source: their dataset, for messages.
        group: what the dataset calls a group, for messages.
        grouped: the column of ``frame`` whose equal values are a group.
        val, test: shares of the training images, for splits that the source lacks.

    Returns:
        The images that stay, and those left out: in a second split, or unlabeled while their group is validated or
        tested on.

    Raises:
        UserError: the source's own splits cut through a group, or hold the same images.
    """
    frame[groups.COLUMN] = groups.groups_of(frame, grouped)
    ids = groups.ids_for_splits(frame[groups.COLUMN], frame["sha256"])
    frame["split"] = pd.Categorical(
        assign(frame["given_split"], frame["label"].to_numpy(np.int64), ids, val, test), SPLITS
    )
    frame, overlaps = drop_overlaps(frame, source)
    groups.refuse_broken(frame, source, group)
    frame, leaks = groups.leave_out_unlabeled(frame, group)
    return frame, overlaps + leaks


def _describe(
    building: Path, frame: pd.DataFrame, facts: dict[str, Any], slices: list[str], left_out: list[Failure]
) -> None:
    """Write what tells of the shards in ``building``: manifest and facts, what was ``left_out``, and a look at both."""
    classes = facts["classes"]
    _write_manifest(building / "manifest.parquet", frame, classes, slices)
    _write_quarantine(building / "quarantine.csv", left_out)
    write_json(building / "dataset.json", facts)
    write_json(building / "images.json", {name: facts[name] for name in TRAINING_FACTS})
    shown = "train" if facts["counts"]["train"] else "val"
    sheet.samples(open_shard(building / "shards" / shown), classes, building / "samples.png")
    sheet.quarantine([(failure.path, failure.reason) for failure in left_out], building / "quarantine.png")


def keeps_encoded(storage: Storage, count: int, shape: tuple[int, int, int], decoded_max_gb: float) -> bool:
    """Decide whether images are kept as files, or as pixels.

    Pixels are read fastest as long as they fit into the memory of the machine that trains. ``auto`` limits their size
    by a param, not by the memory or disk of this machine: DVC keys every later stage by the shards, and two machines
    that chose differently would train everything twice. The pixels, and so every result, are the same to the bit
    either way. ``decoded_max_gb`` counts 10^9 bytes.
    """
    return storage == "encoded" or (storage == "auto" and count * math.prod(shape) > decoded_max_gb * 1e9)


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
    """Move everything into place; dataset.json, which the later stages need, goes first and comes back last."""
    names = [
        *(f"shards/{split}" for split in SPLITS),
        *(
            "manifest.parquet",
            "quarantine.csv",
            "samples.png",
            "quarantine.png",
            "images.json",
            "pretraining.json",
            croissant.FILE,
            "dataset.json",
        ),
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


def _write_quarantine(path: Path, left_out: list[Failure]) -> None:
    # For people, too: a spreadsheet takes a CSV file without this mark for one of its own country's encoding.
    with atomic(path) as temporary:
        cells = pd.DataFrame(left_out, columns=["path", "reason", "kind"]).map(as_cell)
        cells.to_csv(temporary, index=False, encoding="utf-8-sig")


def pretraining_facts(facts: dict[str, Any], mode: str) -> dict[str, Any]:
    """What the starting weights depend on with a ``pretrain.mode``, of the contents of ``dataset.json``."""
    if mode == "zero-shot":
        return {"classes": facts["classes"]}
    if mode != "self-supervised":
        return {}
    splits = {split: facts["fingerprints"][split] for split in SPLITS if split != "test"}
    return {**{name: facts[name] for name in TRAINING_FACTS}, "fingerprints": splits}


def _facts(source: Path, classes: list[str], frame: pd.DataFrame, image_size: int, channels: int) -> dict[str, Any]:
    seen = "train" if (frame["split"] == "train").any() else "unlabeled"
    mean, std = channel_moments(frame.loc[frame["split"] == seen, level_columns(channels)], image_size**2)
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
