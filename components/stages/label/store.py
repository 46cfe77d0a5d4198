"""Fills the soft-label store, a shard at a time, and reuses the records that earlier stores share with it.

Stores are built, and the last one is kept, outside DVC's outs: DVC deletes those before it runs a stage.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reflux.components.core.artifacts import atomic, read_json, sha256_file, write_json
from reflux.components.core.data.draws import Uint64s
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.core.teacher.soft_labels import (
    IDS,
    SHARD_IMAGES,
    Format,
    Indices,
    Records,
    digest,
    records_of,
    shard_file,
    shard_rows,
)
from reflux.components.modalities.image.views.mixing import own_ids

KEPT = Path(".reflux/soft-labels")

_HEAD = "head.json"

LogitsOf = Callable[[Indices, Indices], Tensor]
Partners = Callable[[Uint64s, int], Uint64s]


@dataclass(frozen=True)
class FilledStore:
    """A complete store, with the numbers of records from earlier stores and from the teacher."""

    key: str  # of all that decides it
    folder: Path
    shards: list[dict[str, Any]]  # file, rows and sha256 of each
    reused: int
    computed: int
    changed: tuple[str, ...]  # what decides the records and is not as in the stores that were kept, if all were useless


def fill(
    decided_by: Mapping[str, Any],
    ids: Uint64s,
    views: int,
    format: Format,
    batch_size: int,
    logits_of: LogitsOf,
    advance: Callable[[int], None],
    partners_of: Callable[[Uint64s], Partners] = lambda _ids: own_ids,
    kept: Path = KEPT,
    world: World = ALONE,
) -> FilledStore:
    """Store the teacher's logits of every view of every image.

    Args:
        decided_by: all that decides a record apart from its image and view, by name: teacher, views, seed and so on.
        ids: of the images, uint64 [N].
        views: the number of views of each image.
        batch_size: views in a batch of the teacher.
        logits_of: the teacher's logits float32 [B, K] on the CPU, of views [B] of images [B].
        advance: called with the number of finished records.
        partners_of: the image that each view is mixed with, given the images ``ids``; a record is valid as long as its
            partner is the same.
        kept: where stores are built and kept.
        world: the processes that divide the work, in rounds of a shard each, so that none waits long for another.

    Raises:
        UserError: the teacher's logits are not finite, or the processes do not share ``kept``.
    """
    base = digest(decided_by)
    key = _key(base, ids, views)
    folder = kept / key[:32]
    others = [other for other in sorted(kept.glob("[!.]*")) if other != folder]
    intact = [other for other in others if _is_intact(other, base)]
    earlier = [EarlierStore(other, format, partners_of) for other in intact]
    changed = () if intact or folder.exists() else _changed(others, decided_by)
    if world.first:
        _prepare(folder, base, ids, views, decided_by)
    sizes, partners = shard_rows(len(ids)), partners_of(ids)
    numbers = range(len(sizes))
    unfinished = [number for number in numbers if valid_note(folder, number) is None] if world.first else None
    missing = world.broadcast(unfinished)
    advance((len(ids) - sum(sizes[number] for number in missing)) * views)
    computed = 0
    for begin in range(0, len(missing), world.size):
        numbers_now = missing[begin : begin + world.size]
        own = 0
        if world.rank < len(numbers_now):
            number = numbers_now.pop(world.rank)
            indices = np.arange(sizes[number]) + number * SHARD_IMAGES
            mixed = partners(ids[indices], views)
            file = folder / shard_file(number)
            own = _fill_shard(file, indices, ids[indices], mixed, format, earlier, batch_size, logits_of, advance)
            note = {"file": file.name, "rows": len(indices), "sha256": sha256_file(file)}
            write_json(file.with_suffix(".json"), note)
        computed += int(world.sum(torch.tensor(own)))
        advance(sum(sizes[number] for number in numbers_now) * views)  # by the other processes
    shards = [_read_note(folder, number) for number in numbers] if world.first else []
    return FilledStore(key, folder, shards, len(ids) * views - computed, computed, changed)


def share_of_disk(size: int, kept: Path = KEPT) -> float:
    """The share that a store of ``size`` bytes takes of the disk space that is free or taken by earlier stores."""
    kept.mkdir(parents=True, exist_ok=True)
    earlier = sum(file.stat().st_size for file in kept.rglob("*.npy"))
    return size / (shutil.disk_usage(kept).free + earlier)


def _changed(others: list[Path], decided_by: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which something decided the records of other stores than what decides them now."""
    before = [_head(other).get("decided_by", {}) for other in others]
    return tuple(name for name in decided_by if any(name in each and each[name] != decided_by[name] for each in before))


def _head(folder: Path) -> dict[str, Any]:
    """What a store says of itself; nothing if that is damaged."""
    try:
        return dict(read_json(folder / _HEAD))
    except (UserError, OSError, ValueError, TypeError):
        return {}


def _prepare(folder: Path, base: str, ids: Uint64s, views: int, decided_by: Mapping[str, Any]) -> None:
    if not _is_intact(folder, base):
        shutil.rmtree(folder, ignore_errors=True)
        with atomic(folder / IDS) as temporary:
            np.save(temporary, ids)
        write_json(folder / _HEAD, {"views": views, "decided_by": decided_by})
    for cut_short in folder.glob(".*"):
        cut_short.unlink()


def _read_note(folder: Path, number: int) -> dict[str, Any]:
    file = (folder / shard_file(number)).with_suffix(".json")
    if not file.is_file():
        raise UserError(f"{file} was written on another machine: give all machines one shared folder for `label`.")
    note: dict[str, Any] = read_json(file)
    return note


def _fill_shard(
    file: Path,
    indices: Indices,
    ids: Uint64s,
    partners: Uint64s,
    format: Format,
    earlier: list["EarlierStore"],
    batch_size: int,
    logits_of: LogitsOf,
    advance: Callable[[int], None],
) -> int:
    """Write one shard; returns the number of records that the teacher computed."""
    records = np.zeros(partners.shape, format.dtype)
    missing = np.ones(partners.shape, bool)
    for store in earlier:
        store.copy(ids, partners, records, missing)
    advance(int((~missing).sum()))
    # The views of an image follow each other, because encoded images are decoded once a batch.
    row, view = np.nonzero(missing)
    for begin in range(0, len(row), batch_size):
        part = slice(begin, begin + batch_size)
        records[row[part], view[part]] = _packed(format, logits_of(indices[row[part]], view[part]))
        advance(len(row[part]))
    with atomic(file) as temporary:
        np.save(temporary, records)
    return len(row)


def _packed(format: Format, logits: Tensor) -> Records:
    records = format.pack(logits)
    if not np.isfinite(records["logits"] if format.top_k else records).all():
        raise UserError("The teacher's logits are not finite: fine-tune it with a lower finetune.lr and label again.")
    return records


def _key(base: str, ids: Uint64s, views: int) -> str:
    return digest(base, hashlib.sha256(ids.tobytes()).hexdigest(), views)


def _is_intact(folder: Path, base: str) -> bool:
    """True for a store of ``base`` whose images and views are those that its name was made from."""
    try:
        views = _head(folder)["views"]
        return folder.name == _key(base, np.load(folder / IDS, allow_pickle=False), views)[:32]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def valid_note(folder: Path, number: int) -> dict[str, Any] | None:
    """The note next to a shard, if the shard matches it; None otherwise."""
    file = folder / shard_file(number)
    try:
        note = read_json(file.with_suffix(".json"))
        return note if sha256_file(file) == note["sha256"] else None
    except (UserError, OSError, KeyError, TypeError):
        return None


class EarlierStore:
    """A store of other images or another number of views, whose records are still valid for the images in both."""

    def __init__(self, folder: Path, format: Format, partners_of: Callable[[Uint64s], Partners]) -> None:
        self._folder, self._format = folder, format
        ids = np.load(folder / IDS, allow_pickle=False)
        self._order = np.argsort(ids)
        self._ids = ids[self._order]
        self._partners = partners_of(ids)
        self._views = int(read_json(folder / _HEAD)["views"])
        self._rows = shard_rows(len(ids))
        self._opened: dict[int, npt.NDArray[np.uint8] | None] = {}

    def copy(self, ids: Uint64s, partners: Uint64s, records: Records, missing: npt.NDArray[np.bool_]) -> None:
        """Copy this store's records of images ``ids`` into ``records`` [N, V], and clear them in ``missing`` [N, V]."""
        size = self._format.dtype.itemsize
        into = records.view(np.uint8).reshape(*missing.shape, size)
        views = min(self._views, missing.shape[1])
        place = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        valid = self._partners(ids, views) == partners[:, :views]
        index = np.where(self._ids[place] == ids, self._order[place], -SHARD_IMAGES)
        for number in np.unique(index[index >= 0] // SHARD_IMAGES).tolist():
            shard = self._shard(number)
            if shard is not None:
                rows, numbers = np.nonzero(valid & (index // SHARD_IMAGES == number)[:, None])
                into[rows, numbers] = shard[index[rows] % SHARD_IMAGES, numbers]
                missing[rows, numbers] = False

    def _shard(self, number: int) -> npt.NDArray[np.uint8] | None:
        if number not in self._opened:
            intact = valid_note(self._folder, number) is not None
            file = self._folder / shard_file(number)
            self._opened[number] = records_of(file, self._rows[number], self._views, self._format) if intact else None
        return self._opened[number]


def publish(filled: FilledStore, out: Path) -> None:
    """Publish the store at ``out``, atomically: its files are linked, or copied where links can't be made."""
    temporary = out.with_name(f".{out.name}")
    for folder in (temporary, out):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in [IDS, *(shard["file"] for shard in filled.shards)]:
        try:
            os.link(filled.folder / name, temporary / name)
        except OSError:
            shutil.copyfile(filled.folder / name, temporary / name)
    temporary.rename(out)


def publish_empty(ids: Uint64s, out: Path) -> None:
    """Publish a store without soft labels, for a teacher that runs at every step."""
    shutil.rmtree(out, ignore_errors=True)
    with atomic(out / IDS) as temporary:
        np.save(temporary, ids)


def remove_others(filled: FilledStore) -> None:
    """Remove all other kept stores, whose records the new one has taken over."""
    for other in filled.folder.parent.iterdir():
        if other != filled.folder:
            shutil.rmtree(other, ignore_errors=True)
