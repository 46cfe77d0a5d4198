"""Fills the soft-label store, a shard at a time; what was computed before is not computed again.

Stores are built, and the last one is kept, outside DVC's outs: DVC deletes those before it runs a stage.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.core.artifacts import atomic, read_json, sha256_file, write_json
from components.core.errors import UserError
from components.core.runtime.world import ALONE, World
from components.core.teacher.soft_labels import (
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
from components.core.views.mixing import own_ids

KEPT = Path(".reflux/soft-labels")

_HEAD = "head.json"

Uint64s = npt.NDArray[np.uint64]
Answer = Callable[[Indices, Indices], Tensor]
Partners = Callable[[Uint64s, int], Uint64s]


@dataclass(frozen=True)
class Filled:
    """A store whose last shard is written.

    Attributes:
        key: of all that decides it.
        folder: where it lies.
        shards: file, rows and sha256 of each shard.
        reused: records that were there before.
        computed: records that the teacher was asked for.
    """

    key: str
    folder: Path
    shards: list[dict[str, Any]]
    reused: int
    computed: int


def fill(
    base: str,
    ids: Uint64s,
    views: int,
    format: Format,
    batch_size: int,
    answer: Answer,
    advance: Callable[[int], None],
    partners_of: Callable[[Uint64s], Partners] = lambda _ids: own_ids,
    kept: Path = KEPT,
    world: World = ALONE,
) -> Filled:
    """Store the teacher's answer to every view of every image.

    Args:
        base: the key of what decides a record beside its image and view: teacher, augmentation, seed and format.
        ids: of the images, uint64 [N].
        views: of each image.
        format: of a record.
        batch_size: views that the teacher is asked for at once.
        answer: the teacher's logits float32 [B, K] on the CPU, of views [B] of images [B].
        advance: is called with the number of records that are done.
        partners_of: which image each view is mixed with, when there are images ``ids``: a record is right as long as
            that is the same.
        kept: where stores are built and kept.
        world: the processes that share the work, in rounds of a shard each, so that none waits long for another.

    Raises:
        UserError: the teacher's logits are not finite, or the processes do not share ``kept``.
    """
    key = _key(base, ids, views)
    folder = kept / key[:32]
    others = [other for other in sorted(kept.glob("[!.]*")) if other != folder and _is_whole(other, base)]
    olds = [Old(other, format, partners_of) for other in others]
    if world.first:
        _begin(folder, base, ids, views)
    sizes, partners = shard_rows(len(ids)), partners_of(ids)
    numbers = range(len(sizes))
    unfinished = [number for number in numbers if finished(folder, number) is None] if world.first else None
    missing = world.broadcast(unfinished)
    advance((len(ids) - sum(sizes[number] for number in missing)) * views)
    computed = 0
    for begin in range(0, len(missing), world.size):
        now = missing[begin : begin + world.size]
        own = 0
        if world.rank < len(now):
            number = now.pop(world.rank)
            indices = np.arange(sizes[number]) + number * SHARD_IMAGES
            mixed = partners(ids[indices], views)
            file = folder / shard_file(number)
            own = _fill_shard(file, indices, ids[indices], mixed, format, olds, batch_size, answer, advance)
            note = {"file": file.name, "rows": len(indices), "sha256": sha256_file(file)}
            write_json(file.with_suffix(".json"), note)
        computed += int(world.sum(torch.tensor(own)))
        advance(sum(sizes[number] for number in now) * views)  # the others'
    shards = [_note(folder, number) for number in numbers] if world.first else []
    return Filled(key, folder, shards, len(ids) * views - computed, computed)


def _begin(folder: Path, base: str, ids: Uint64s, views: int) -> None:
    if not _is_whole(folder, base):
        shutil.rmtree(folder, ignore_errors=True)
        with atomic(folder / IDS) as temporary:
            np.save(temporary, ids)
        write_json(folder / _HEAD, {"views": views})
    for cut_short in folder.glob(".*"):
        cut_short.unlink()


def _note(folder: Path, number: int) -> dict[str, Any]:
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
    olds: list["Old"],
    batch_size: int,
    answer: Answer,
    advance: Callable[[int], None],
) -> int:
    """Write one shard; returns how many records had to be computed."""
    records = np.zeros(partners.shape, format.dtype)
    missing = np.ones(partners.shape, bool)
    for old in olds:
        old.copy(ids, partners, records, missing)
    advance(int((~missing).sum()))
    # An image's views side by side, because images that came encoded are decoded once a batch.
    row, view = np.nonzero(missing)
    for begin in range(0, len(row), batch_size):
        part = slice(begin, begin + batch_size)
        records[row[part], view[part]] = _packed(format, answer(indices[row[part]], view[part]))
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


def _is_whole(folder: Path, base: str) -> bool:
    """Whether a kept store is one of ``base``, and is of the images and views that its name was made from."""
    try:
        views = read_json(folder / _HEAD)["views"]
        return folder.name == _key(base, np.load(folder / IDS, allow_pickle=False), views)[:32]
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return False


def finished(folder: Path, number: int) -> dict[str, Any] | None:
    """The note beside a shard, if the shard is what the note says."""
    file = folder / shard_file(number)
    try:
        note = read_json(file.with_suffix(".json"))
        return note if sha256_file(file) == note["sha256"] else None
    except (UserError, OSError, KeyError, TypeError):
        return None


class Old:
    """A store of other images or other numbers of views, whose records are still right for the images it shares.

    Args:
        folder: where it is kept.
        format: of its records.
        partners_of: see :func:`fill`.
    """

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
        """Copy into records [N, V] of images ``ids`` what is known here, and strike it off ``missing`` [N, V]."""
        size = self._format.dtype.itemsize
        into = records.view(np.uint8).reshape(*missing.shape, size)
        views = min(self._views, missing.shape[1])
        place = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        right = self._partners(ids, views) == partners[:, :views]
        index = np.where(self._ids[place] == ids, self._order[place], -SHARD_IMAGES)
        for number in np.unique(index[index >= 0] // SHARD_IMAGES).tolist():
            shard = self._shard(number)
            if shard is not None:
                rows, numbers = np.nonzero(right & (index // SHARD_IMAGES == number)[:, None])
                into[rows, numbers] = shard[index[rows] % SHARD_IMAGES, numbers]
                missing[rows, numbers] = False

    def _shard(self, number: int) -> npt.NDArray[np.uint8] | None:
        if number not in self._opened:
            whole = finished(self._folder, number) is not None
            file = self._folder / shard_file(number)
            self._opened[number] = records_of(file, self._rows[number], self._views, self._format) if whole else None
        return self._opened[number]


def publish(filled: Filled, out: Path) -> None:
    """Let the store appear at ``out``, whole: its files are linked there, or copied where links can't be made."""
    beside = out.with_name(f".{out.name}")
    for folder in (beside, out):
        shutil.rmtree(folder, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in [IDS, *(shard["file"] for shard in filled.shards)]:
        try:
            os.link(filled.folder / name, beside / name)
        except OSError:
            shutil.copyfile(filled.folder / name, beside / name)
    beside.rename(out)


def publish_empty(ids: Uint64s, out: Path) -> None:
    """A store that holds no soft label, because the teacher is asked for them at every step."""
    shutil.rmtree(out, ignore_errors=True)
    with atomic(out / IDS) as temporary:
        np.save(temporary, ids)


def remove_others(filled: Filled) -> None:
    """Remove all other kept stores: the new one holds what they could give."""
    for other in filled.folder.parent.iterdir():
        if other != filled.folder:
            shutil.rmtree(other, ignore_errors=True)
