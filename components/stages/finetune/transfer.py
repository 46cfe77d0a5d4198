"""Strategies of transfer: linear probe, full fine-tuning, and one after the other (Kumar et al. 2022)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import FrozenBatchNormAct2d, freeze_batch_norm_2d
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from reflux.components.core.data.shards import Images, Shard, at_once
from reflux.components.core.precision import autocast
from reflux.components.core.training.balance import adjusted
from reflux.components.core.training.loop import Report
from reflux.components.core.training.optim import exempt_from_decay
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.views.augment import render, to_pixels, view_draws

_PROBE_REPORTS = 10
_PROBE_BATCH = 4096


@dataclass(frozen=True)
class Probe:
    """How a linear probe is trained.

    Attributes:
        views: of each image, augmented by ``augment`` with ``seed``.
        steps: each over all features.
        lr: the peak learning rate.
        batch_size: images whose features are computed at a time.
        class_weights, log_priors: [K], those of :mod:`reflux.components.core.training.balance`.
    """

    views: int
    steps: int
    lr: float
    weight_decay: float
    batch_size: int
    seed: int
    augment: Mapping[str, Any]
    class_weights: Tensor | None = None
    log_priors: Tensor | None = None


@torch.inference_mode()
def features_of_views(
    model: PixelModel, images: Shard, probe: Probe, advance: Callable[[int], None]
) -> Iterator[Tensor]:
    """The frozen backbone's features of every image, view after view, in chunks [n, D]."""
    device = next(model.parameters()).device
    for view in range(probe.views):
        for begin in range(0, len(images), probe.batch_size):
            rows = slice(begin, begin + probe.batch_size)
            ids = images.ids[rows]
            uniform = view_draws(probe.seed, ids, np.full(len(ids), view))
            pixels = render(images.images[rows], uniform, **probe.augment, device=device)
            with autocast(device, training=False):
                yield model.features(pixels)
            advance(len(ids))


@torch.inference_mode()
def features_of_images(model: PixelModel, images: Images, device: torch.device) -> Iterator[Tensor]:
    """The frozen backbone's features of every image, without augmentation, in chunks [n, D]."""
    size = at_once(images, _PROBE_BATCH)
    for begin in range(0, len(images), size):
        with autocast(device, training=False):
            yield model.features(to_pixels(images[begin : begin + size], device))


def mapped_to(file: BinaryIO, chunks: Iterable[Tensor]) -> Tensor:
    """Write chunks [n, D] to a file, and map them as one float32 tensor [N, D]."""
    width = 0
    for chunk in chunks:
        width = chunk.shape[1]
        file.write(chunk.float().cpu().numpy().tobytes())
    file.flush()
    mapped: npt.NDArray[np.float32] = np.memmap(file, np.float32, "r+")
    return torch.from_numpy(mapped.reshape(-1, width))


def linear_probe(
    model: PixelModel,
    train: Shard,
    val: Shard,
    probe: Probe,
    scratch: Path,
    report: Report,
    advance: Callable[..., None],
) -> list[dict[str, float]]:
    """Train the head alone on features of augmented views; the backbone and its BatchNorm do not change.

    Every step computes the loss over all features, a chunk at a time. The features are in unnamed files in ``scratch``,
    which end with the process.

    Returns:
        The history; the head keeps the weights of the last step.
    """
    model.eval()
    steps, device = probe.steps, next(model.parameters()).device
    balance = {"class_weights": probe.class_weights, "log_priors": probe.log_priors}
    head: nn.Module = model.net.get_classifier()  # type: ignore[operator]
    optimizer = torch.optim.AdamW(head.parameters(), lr=probe.lr, weight_decay=probe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history: list[dict[str, float]] = []
    labels, val_labels = (torch.from_numpy(shard.labels).to(device) for shard in (train, val))
    labels = labels.repeat(probe.views)
    with TemporaryFile(dir=scratch) as file, TemporaryFile(dir=scratch) as val_file:
        features = mapped_to(file, features_of_views(model, train, probe, advance))
        val_features = mapped_to(val_file, features_of_images(model, val.images, device))
        for step in range(1, steps + 1):
            optimizer.zero_grad(set_to_none=True)
            loss, train_accuracy = _whole_loss(head, features, labels, device, backward=True, **balance)
            optimizer.step()
            schedule.step()
            if step % max(1, steps // _PROBE_REPORTS) == 0:
                with torch.inference_mode():
                    val_loss, accuracy = _whole_loss(head, val_features, val_labels, device, backward=False)
                row = {"step": step, "images": step * len(features), "lr": float(schedule.get_last_lr()[0])}
                row |= {"train_loss": loss, "val_loss": val_loss, "val_accuracy": accuracy}
                row |= {"train_accuracy": train_accuracy, "images_per_s": np.nan}
                history.append(row)
                report(row)
    advance(0, val_accuracy=round(history[-1]["val_accuracy"], 4))
    return history


def _whole_loss(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    device: torch.device,
    backward: bool,
    class_weights: Tensor | None = None,
    log_priors: Tensor | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over all features, a chunk at a time; with ``backward`` also the gradient."""
    loss, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for chunk, target in zip(features.split(_PROBE_BATCH), labels.split(_PROBE_BATCH), strict=True):
        logits = head(chunk.to(device))
        value = F.cross_entropy(adjusted(logits, log_priors), target, class_weights, reduction="sum") / len(labels)
        if backward:
            value.backward()
        loss += value.detach()
        correct += (logits.argmax(1) == target).sum()
    return loss.item(), correct.item() / len(labels)


def layer_decay_groups(
    model: PixelModel, weight_decay: float, layer_decay: float, exempt: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate falls by ``layer_decay`` a layer towards the input (timm).

    Those that ``exempt`` names have no weight decay, along with those that the network exempts itself.
    """
    spared = {*exempt_from_decay(model.net), *exempt}
    return param_groups_layer_decay(model.net, weight_decay, spared, layer_decay=layer_decay)


def _normalized(layer: Any, x: Tensor) -> Tensor:
    """A frozen layer's maps by one kernel.

    Validation computes in bfloat16, where the four kernels of torchvision and timm write maps of float32: an image of
    80 pixels takes tf_efficientnet_lite0 2.1 ms, and 0.85 with this one. A step of training takes as long with either.
    """
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


class _FusedNorm(FrozenBatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return _normalized(self, x)


class _FusedNormAct(FrozenBatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(_normalized(self, x)))
        return activated


_FUSED: dict[type[nn.Module], type[nn.Module]] = {FrozenBatchNorm2d: _FusedNorm, FrozenBatchNormAct2d: _FusedNormAct}


def freeze_batch_norm(model: PixelModel) -> None:
    """Keep the BatchNorm layers of pretraining: their statistics, which a few hundred images estimate badly.

    Their scale and shift are kept with them and not trained.
    """
    model.net = freeze_batch_norm_2d(model.net)
    for layer in model.net.modules():  # they keep their tensors and activations
        layer.__class__ = _FUSED.get(type(layer), type(layer))
