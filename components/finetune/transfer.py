"""The strategies of transfer: linear probe, full fine-tuning, and the one after the other (Kumar et al. 2022)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.layers import freeze_batch_norm_2d
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F

from components.core.device import autocast
from components.core.models import ModelSpec, PixelModel
from components.core.shards import Dataset, Shard
from components.core.views import draws, plain, render

_PROBE_REPORTS = 10


def adapt(pretrained: PixelModel, dataset: Dataset, image_size: int) -> PixelModel:
    """Give a pretrained network a fresh head for the dataset's classes, at another image size.

    The network keeps the mean and standard deviation that it was pretrained with.
    """
    spec = pretrained.spec
    pretrained.net.reset_classifier(len(dataset.classes))  # type: ignore[operator]
    model = PixelModel(
        pretrained.net, ModelSpec(spec.name, dataset.classes, image_size, spec.in_chans, spec.mean, spec.std)
    )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def features_of_views(
    model: PixelModel,
    images: Shard,
    views: int,
    batch_size: int,
    seed: int,
    augment: dict[str, Any],
    device: torch.device,
    advance: Callable[[int], None],
) -> Tensor:
    """The frozen backbone's features [views, N, D]: computed once, however long the head is trained."""
    model.eval()
    rows = []
    for view in range(views):
        for begin in range(0, len(images), batch_size):
            part = slice(begin, begin + batch_size)
            ids = images.ids[part]
            pixels = render(images.images[part], draws(seed, ids, np.full(len(ids), view)), **augment, device=device)
            with autocast(device, training=False):
                rows.append(model.features(pixels))
            advance(len(ids))
    return torch.cat(rows).view(views, len(images), -1)


def linear_probe(
    model: PixelModel,
    train: Shard,
    val: Shard,
    views: int,
    steps: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    seed: int,
    augment: dict[str, Any],
    device: torch.device,
    report: Callable[[dict[str, float]], None],
    advance: Callable[..., None],
) -> list[dict[str, float]]:
    """Train the head alone on features of augmented views; the backbone and its BatchNorm stay as they are.

    Returns:
        The history; the head is left with the weights of the last step.
    """
    features = features_of_views(model, train, views, batch_size, seed, augment, device, advance).flatten(0, 1)
    labels = torch.from_numpy(train.labels).to(device).repeat(views)
    with torch.inference_mode(), autocast(device, training=False):
        val_features = model.features(plain(val.images[:], device))
    features, val_features = features.clone(), val_features.clone()
    val_labels = torch.from_numpy(val.labels).to(device)
    head: nn.Module = model.net.get_classifier()  # type: ignore[operator]
    optimize = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimize, steps)
    history: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        loss = F.cross_entropy(head(features), labels)
        optimize.zero_grad(set_to_none=True)
        loss.backward()
        optimize.step()
        schedule.step()
        if step % max(1, steps // _PROBE_REPORTS) == 0:
            with torch.inference_mode():
                logits = head(val_features)
            row: dict[str, float] = {
                "step": step,
                "images": step * len(features),
                "lr": float(schedule.get_last_lr()[0]),
            }
            row |= {"train_loss": loss.item(), "val_loss": F.cross_entropy(logits, val_labels).item()}
            row |= {"val_accuracy": (logits.argmax(1) == val_labels).float().mean().item(), "images_per_s": np.nan}
            history.append(row)
            report(row)
    advance(0, val_accuracy=round(history[-1]["val_accuracy"], 4))
    return history


def groups_with_layer_decay(model: PixelModel, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate falls by ``layer_decay`` a layer towards the input (timm)."""
    return param_groups_layer_decay(model.net, weight_decay=weight_decay, layer_decay=layer_decay)


def freeze_batch_norm(model: PixelModel) -> None:
    """Keep the BatchNorm statistics of pretraining: a few hundred images estimate them badly."""
    model.net = freeze_batch_norm_2d(model.net)
