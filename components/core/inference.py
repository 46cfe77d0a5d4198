"""Inference on whole splits: logits, and loss and accuracy."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.data.shards import Images, Shard, at_once
from reflux.components.core.precision import autocast
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.modalities.image.views.augment import to_pixels

_BATCH = 512


@torch.inference_mode()
def validate(model: nn.Module, shard: Shard, device: torch.device, world: World = ALONE) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a labeled split, without augmentation; the processes divide the work."""
    rows = world.shard(len(shard))
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    if rows:
        logits = predict(model, shard.images, device, rows)
        labels = torch.from_numpy(shard.labels[rows.start : rows.stop]).to(device)
        sums[0] = F.cross_entropy(logits, labels, reduction="sum")
        sums[1] = (logits.argmax(1) == labels).sum()
    loss, accuracy = (world.sum(sums) / len(shard)).tolist()
    return loss, accuracy


@torch.inference_mode()
def predict(model: nn.Module, images: Images, device: torch.device, rows: range | None = None) -> Tensor:
    """Logits [N, K] of images [N, H, W, C], or of some of their rows, in eval mode."""
    model.eval()
    rows = range(len(images)) if rows is None else rows
    logits, size = [], at_once(images, _BATCH)
    for begin in rows[::size]:
        with autocast(device, training=False):
            logits.append(model(to_pixels(images[begin : min(begin + size, rows.stop)], device)))
    return torch.cat(logits)
