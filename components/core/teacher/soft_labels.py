"""The soft-label store: the teacher's logits of every view, in a memory-mapped file for each shard of images.

``label`` writes it and ``distill`` reads it. Logits are kept, not probabilities, so that any temperature can be applied
later. With few classes a record has the logits as float16; with many it has the k largest, their classes, and the
logsumexp of the rest (Shen and Xing 2022 store probabilities at T = 1 and lose the rest's mass at any other T).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError

SHARD_IMAGES = 1024
_COPIED = 2**26  # bytes up to which a store is read into memory: one look-up a batch instead of one a record
IDS = "ids.npy"

Indices = npt.NDArray[np.int64]
Records = npt.NDArray[Any]


@dataclass(frozen=True)
class Format:
    """Format of one view's logits in the store."""

    classes: int
    top_k: int  # logits that are stored one by one; 0 stores all

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of one record."""
        if not self.top_k:
            return np.dtype(("<f2", (self.classes,)))
        index = "<u2" if self.classes <= 1 << 16 else "<u4"
        fields = [("logits", "<f2", (self.top_k,)), ("classes", index, (self.top_k,)), ("rest", "<f4")]
        return np.dtype(fields)

    def pack(self, logits: Tensor) -> Records:
        """Make records [B] of logits [B, K] on the CPU; dense ones are float16 [B, K]."""
        if not self.top_k:
            return logits.to(torch.float16).numpy()
        top, classes = logits.float().topk(self.top_k, dim=1)
        rest = logits.float().scatter(1, classes, -torch.inf).logsumexp(1)
        records = np.empty(len(logits), self.dtype)
        records["logits"], records["classes"], records["rest"] = top.half().numpy(), classes.numpy(), rest.numpy()
        return records

    def distance(self, logits: Tensor, records: Records) -> Tensor:
        """Compute how far each number in records [B] is from logits [B, K] of the same classes: [B, …]."""
        if not self.top_k:
            return (logits - torch.from_numpy(records).float()).abs()
        classes = torch.from_numpy(records["classes"].astype(np.int64))
        rest = logits.scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True)
        now = torch.cat([logits.gather(1, classes), rest], dim=1)
        then = np.concatenate([records["logits"].astype(np.float32), records["rest"][:, None]], axis=1)
        return (now - torch.from_numpy(then)).abs()

    def unpack(self, records: Records) -> Tensor:
        """Make logits [B, K] of records [B]; the mass of the rest is spread evenly over its classes."""
        if not self.top_k:
            return torch.from_numpy(records).float()
        even = torch.from_numpy(records["rest"] - np.float32(np.log(self.classes - self.top_k)))
        logits = even[:, None].repeat(1, self.classes)
        classes = torch.from_numpy(records["classes"].astype(np.int64))
        return logits.scatter_(1, classes, torch.from_numpy(records["logits"]).float())


def format_for(classes: int, top_k: int) -> Format:
    """Choose dense records while they take no more space than ``top_k`` logits with their classes and the rest."""
    return Format(classes, top_k if 2 * classes > 4 * top_k + 4 else 0)


def digest(*decides: Any) -> str:
    """Hash everything that decides a result into one key."""
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def shard_file(number: int) -> str:
    """The name of a shard's file."""
    return f"{number:06}.npy"


def shard_rows(images: int) -> list[int]:
    """List how many images each shard holds."""
    return [min(SHARD_IMAGES, images - begin) for begin in range(0, images, SHARD_IMAGES)]


class SoftLabels:
    """The soft labels of all views: mapped files, or copied into memory where they are few."""

    def __init__(self, folder: Path, images: int, views: int, format: Format) -> None:
        self.views, self.format = views, format
        self._shards = [
            records_of(folder / shard_file(number), rows, views, format)
            for number, rows in enumerate(shard_rows(images))
        ]
        small = images * views * format.dtype.itemsize <= _COPIED
        self._whole = np.concatenate(self._shards) if small and self._shards else None

    def __call__(self, indices: Indices, views: Indices) -> Tensor:
        """Read logits float32 [B, K] of views [B] of images [B]."""
        return self.format.unpack(self.records(indices, views))

    def records(self, indices: Indices, views: Indices) -> Records:
        """Read records [B] of views [B] of images [B]."""
        if self._whole is not None:
            stored = self._whole[indices, views]
        else:
            shards, rows = np.divmod(indices, SHARD_IMAGES)
            places = zip(shards.tolist(), rows.tolist(), views.tolist(), strict=True)
            stored = np.stack([self._shards[shard][row, view] for shard, row, view in places])
        records = stored.view(self.format.dtype.base)
        return records[:, 0] if self.format.top_k else records


def records_of(file: Path, rows: int, views: int, format: Format) -> npt.NDArray[np.uint8]:
    """Map the records of a shard as bytes [rows, views, bytes].

    torch maps them, because it keeps no file open: a million images have a thousand shards, as many files as a process
    may open by default.

    Raises:
        UserError: the file is missing or has another shape.
    """
    expected = np.empty((0, views), format.dtype)
    try:
        with file.open("rb") as opened:
            np.lib.format.read_magic(opened)
            shape, _, dtype = np.lib.format.read_array_header_1_0(opened)
            header = opened.tell()
        size = rows * views * format.dtype.itemsize
        if (shape, dtype) != ((rows, *expected.shape[1:]), expected.dtype) or file.stat().st_size != header + size:
            raise ValueError(f"{dtype} of shape {shape}")
        mapped = torch.from_file(str(file), shared=False, size=header + size, dtype=torch.uint8)
    except (OSError, ValueError) as error:
        raise damaged(file, str(error)) from None
    return mapped[header:].numpy().reshape(rows, views, format.dtype.itemsize)


def damaged(file: Path, what: str) -> UserError:
    """The error for a file of the store that is not what ``label`` wrote."""
    return UserError(f"{file} is damaged ({what}): delete {file.parent.parent} and run `reflux run` to label again.")


def open_store(
    folder: Path, manifest: dict[str, Any], teacher_sha256: str, views_key: str, classes: tuple[str, ...]
) -> SoftLabels:
    """Open the store that ``label`` wrote, and check every file of it.

    It must hold the soft labels of the current teacher, for the views that the student will see; ``views_key`` is
    :func:`reflux.components.core.data.draws.views_key`.

    Raises:
        UserError: the store has another teacher, other images, views or classes, or a file is missing or damaged.
    """
    if manifest.get("shards") == []:
        raise UserError(f"{folder} is empty, as no method needed soft labels: run `reflux run` to label.")
    if not {"shards", "teacher_sha256", "views_key", "classes", "images", "views", "top_k"} <= manifest.keys():
        raise UserError(f"{folder} is of another version of Reflux: run `reflux run` to label again.")
    if manifest["teacher_sha256"] != teacher_sha256:
        raise UserError(f"{folder} holds the soft labels of another teacher: run `reflux run` to label again.")
    if manifest["views_key"] != views_key or manifest["classes"] != list(classes):
        raise UserError(
            f"{folder} holds soft labels of other images, views or classes: run `reflux run` to label again."
        )
    for shard in manifest["shards"]:
        file = folder / shard["file"]
        if not file.is_file():
            raise damaged(file, "it is missing")
        if sha256_file(file) != shard["sha256"]:
            raise damaged(file, "its content is not what was written")
    return SoftLabels(folder, manifest["images"], manifest["views"], Format(len(classes), manifest["top_k"]))
