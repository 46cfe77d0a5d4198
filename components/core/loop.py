"""The one training loop: teacher, student and control all run through it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn import functional as F

from components.core.device import autocast
from components.core.errors import UserError
from components.core.models import PixelModel, save
from components.core.shards import Shard
from components.core.views import plain

_VALIDATION_BATCH = 512


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        pixels: uint8 [N, C, H, W].
        targets: whatever the loss compares the logits with.
    """

    pixels: Tensor
    targets: tuple[Tensor, ...]


Report = Callable[[dict[str, float]], None]


def fit(
    model: PixelModel,
    batch_at: Callable[[int], Batch],
    loss: Callable[..., Tensor],
    val: Shard,
    groups: list[dict[str, Any]],
    optimizer: str,
    lr: float,
    weight_decay: float,
    warmup: float,
    steps: int,
    eval_every: int,
    ema_decay: float,
    device: torch.device,
    checkpoint: Path,
    report: Report,
    advance: Callable[..., None],
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights that validation data choose.

    These are the latest whose validation accuracy is within one standard error of the best (Breiman et al. 1984): on a
    few hundred images the plain best picks a lucky moment before the learning rate has come down.

    Args:
        model: the network to train.
        batch_at: the batch of a step; a pure function of the step, so that a run can be repeated.
        loss: takes logits [N, K] and the batch's targets, returns a scalar.
        val: the split that chooses the checkpoint; never the test split.
        groups: the optimizer's parameter groups; an ``lr_scale`` in one multiplies its learning rate.
        optimizer: adamw or sgd (with Nesterov momentum 0.9).
        lr: the peak learning rate.
        weight_decay: for groups that don't bring their own.
        warmup: the share of steps over which the learning rate rises; it then falls as a cosine to zero.
        steps: the budget.
        eval_every: steps between validations.
        ema_decay: decay of the averaged weights that are validated and kept; 0 keeps the trained ones.
        device: where to train.
        checkpoint: where the chosen weights so far are kept while training goes on.
        report: is called with each row of the history.
        advance: is called with each step's number of images, and the validation accuracy when it is new.

    Returns:
        The history, a row a validation: step, images, lr, train_loss, val_loss, val_accuracy, images_per_s.

    Raises:
        UserError: the loss is no longer finite; the message names the step and the checkpoint that was kept.
    """
    model.to(device)
    optimize = _optimizer(groups, optimizer, lr, weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimize, lambda step: _cosine(step, steps, warmup))
    ema = ModelEmaV3(model, decay=ema_decay, use_warmup=True) if ema_decay else None
    judged = ema.module if ema else model
    history: list[dict[str, float]] = []
    kept: dict[str, Tensor] = {}
    best_accuracy = 0.0
    losses: list[Tensor] = []
    images, since = 0, time.perf_counter()
    model.train()
    for step in range(steps):
        batch = batch_at(step)
        with autocast(device, training=True):
            logits = model(batch.pixels)
        value = loss(logits, *batch.targets)
        optimize.zero_grad(set_to_none=True)
        value.backward()
        optimize.step()
        schedule.step()
        if ema:
            ema.update(model, step=step)
        losses.append(value.detach())
        images += len(batch.pixels)
        advance(len(batch.pixels))
        if (step + 1) % eval_every and step + 1 < steps:
            continue
        train_loss = _mean_finite(losses, step, checkpoint if kept else None)
        seconds = time.perf_counter() - since
        val_loss, val_accuracy = validate(judged, val, device)
        row = {"step": step + 1, "images": images, "lr": optimize.param_groups[-1]["lr"], "train_loss": train_loss}
        row |= {"val_loss": val_loss, "val_accuracy": val_accuracy}
        row["images_per_s"] = len(losses) * len(batch.pixels) / seconds
        history.append(row)
        best_accuracy = max(best_accuracy, val_accuracy)
        if val_accuracy >= best_accuracy - _standard_error(best_accuracy, len(val)):
            kept = {name: tensor.detach().clone() for name, tensor in judged.state_dict().items()}
            save(judged, checkpoint)
        report(row)
        advance(0, val_accuracy=round(val_accuracy, 4))
        losses, since = [], time.perf_counter()
        model.train()
    model.load_state_dict(kept)
    model.eval()
    return history


@torch.inference_mode()
def validate(model: PixelModel, shard: Shard, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a labelled split, without augmentation."""
    logits = predict(model, shard.images, device)
    labels = torch.from_numpy(shard.labels).to(device)
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


@torch.inference_mode()
def predict(model: PixelModel, images: "np.ndarray[Any, np.dtype[np.uint8]]", device: torch.device) -> Tensor:
    """Logits [N, K] of images [N, H, W, C], in eval mode."""
    model.eval()
    parts = []
    for begin in range(0, len(images), _VALIDATION_BATCH):
        with autocast(device, training=False):
            parts.append(model(plain(images[begin : begin + _VALIDATION_BATCH], device)))
    return torch.cat(parts)


def _standard_error(accuracy: float, count: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / count)


def _optimizer(groups: list[dict[str, Any]], name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    scaled = [{**group, "lr": lr * group.get("lr_scale", 1.0)} for group in groups]
    if name == "sgd":
        return torch.optim.SGD(scaled, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return torch.optim.AdamW(scaled, lr=lr, weight_decay=weight_decay)


def _cosine(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017)."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _mean_finite(losses: list[Tensor], step: int, kept: Path | None) -> float:
    values = torch.stack(losses)
    if bool(values.isfinite().all()):
        return values.mean().item()
    first = step + 2 - len(losses) + int((~values.isfinite()).nonzero()[0])
    where = f"the last good checkpoint is {kept}" if kept else "no checkpoint was good enough to keep"
    raise UserError(f"The loss is not finite at step {first}: lower the learning rate (lr); {where}.")
