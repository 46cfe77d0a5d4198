"""Computes, stores and proves the teacher's soft labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.core.artifacts import atomic
from components.core.device import autocast
from components.core.errors import UserError
from components.core.models import PixelModel
from components.core.shards import Shard
from components.core.views import draws, render

# bfloat16 keeps 8 bits: two runs of the teacher on other batches may differ by this share of the logits' range.
_TOLERANCE = 0.02


@torch.inference_mode()
def soft_labels(
    teacher: PixelModel,
    images: Shard,
    view: int,
    begin: int,
    end: int,
    seed: int,
    augment: dict[str, Any],
    device: torch.device,
) -> Tensor:
    """The teacher's logits [end - begin, K] for one view of some images, float16 on the CPU."""
    uniform = draws(seed, images.ids[begin:end], np.full(end - begin, view))
    pixels = render(images.images[begin:end], uniform, **augment, device=device)
    with autocast(device, training=False):
        return teacher(pixels).to(torch.float16).cpu()


def write_soft_labels(
    path: Path,
    teacher: PixelModel,
    images: Shard,
    views: int,
    batch_size: int,
    seed: int,
    augment: dict[str, Any],
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Store the logits of every view of every image as float16 [views, N, K] in one memory-mapped file.

    Raises:
        UserError: the teacher's logits are not finite in float16.
    """
    shape = (views, len(images), len(teacher.spec.classes))
    with atomic(path) as temporary:
        store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        for view in range(views):
            for begin in range(0, len(images), batch_size):
                end = min(begin + batch_size, len(images))
                logits = soft_labels(teacher, images, view, begin, end, seed, augment, device)
                if not bool(logits.isfinite().all()):
                    raise UserError(
                        "The teacher's logits are not finite: fine-tune it with a lower finetune.lr and label again."
                    )
                store[view, begin:end] = logits.numpy()
                advance(end - begin)
        store.flush()


def prove(
    path: Path,
    teacher: PixelModel,
    images: Shard,
    sample: int,
    seed: int,
    augment: dict[str, Any],
    device: torch.device,
) -> dict[str, float]:
    """Recompute a sample of the stored soft labels, one image at a time, and compare.

    Returns:
        n, max_abs_difference and the tolerance it was held to.

    Raises:
        UserError: the stored and the recomputed logits differ by more than the tolerance.
    """
    store = np.load(path, mmap_mode="r", allow_pickle=False)
    rng = np.random.default_rng(seed)
    worst = 0.0
    for view, index in zip(rng.integers(0, len(store), sample), rng.integers(0, len(images), sample), strict=True):
        again = soft_labels(teacher, images, int(view), int(index), int(index) + 1, seed, augment, device)
        worst = max(worst, float(np.abs(again.numpy().astype(np.float32)[0] - store[view, index]).max()))
    tolerance = _TOLERANCE * float(np.ptp(store[0].astype(np.float32)))
    if worst > tolerance:
        raise UserError(
            f"{path}: recomputed soft labels differ by {worst:.3g} from the stored ones (tolerance {tolerance:.3g}): "
            "delete the file and run again; if it stays, report a bug."
        )
    return {"n": sample, "max_abs_difference": worst, "tolerance": tolerance}
