"""What adapts the features: the network, with its discriminator where there is one, and the loss."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.core.training.loop import Batch, Loss
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.finetune.adaptation.adversarial import (
    discriminator,
    domain_loss,
    reversed_gradient,
    strength,
)
from reflux.components.stages.finetune.adaptation.batches import Batches
from reflux.components.stages.finetune.adaptation.discrepancies import coral, mk_mmd

Outputs = tuple[Tensor, Tensor, Tensor]


class DomainNetwork(nn.Module):
    """A teacher that shows, in training, what the losses of domain adaptation compare.

    In training it returns logits [N, K], features [N, D], and with ``dann`` the discriminator's logits [N] for being
    the source's, through which the gradient is reversed; in eval mode the logits alone.

    Args:
        teacher: it is trained itself.
        method: ``finetune.adaptation``.
        channels: of the images.
    """

    reversal: Tensor

    def __init__(self, teacher: PixelModel, method: str, channels: int) -> None:
        super().__init__()
        self.teacher = teacher
        self.register_buffer("reversal", torch.zeros(()), persistent=False)  # set before each step
        self.discriminator: nn.Module | None = None
        if method == "dann":
            self.discriminator = discriminator(_width(teacher, channels))

    def forward(self, pixels: Tensor) -> Tensor | Outputs:
        if not self.training:
            return self.teacher(pixels)
        net: Any = self.teacher.net
        maps = net.forward_features(self.teacher.normalized(pixels))
        features, logits = net.forward_head(maps, pre_logits=True).float(), net.forward_head(maps).float()
        if self.discriminator is None:
            return logits, features, features[:, 0]
        return logits, features, self.discriminator(reversed_gradient(features, self.reversal))[:, 0].float()


@torch.inference_mode()
def _width(teacher: PixelModel, channels: int) -> int:
    size = teacher.spec.image_size
    device = next(teacher.parameters()).device
    return teacher.eval().features(torch.zeros(2, channels, size, size, device=device)).shape[1]


def with_reversal(batches: Batches, network: DomainNetwork, steps: int, weight: float) -> Batches:
    """Set how strongly the gradient is reversed before each batch, by DANN's schedule times ``weight``."""

    def from_step(begin: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches(begin), begin):
            network.reversal.fill_(weight * strength(step / steps))
            yield batch

    return from_step


def with_adaptation(loss: Loss, method: str, weight: float) -> Loss:
    """Add the part named after the method to a loss of labeled images.

    DAN compares the features and the logits, its paper's task-specific layers, and Deep CORAL the logits, as its
    authors did; DANN's discriminator sees the features.

    Args:
        loss: of the logits [L, K] and labels [L] of the labeled images, which are the source's and the target's.
        method: dan, deep-coral or dann.
        weight: of the distance; DANN has it in :func:`with_reversal`, and its discriminator learns at full strength.
    """
    distances: dict[str, Callable[[Outputs, Outputs], Tensor]] = {
        "dan": lambda source, target: weight * (mk_mmd(source[1], target[1]) + mk_mmd(source[0], target[0])),
        "deep-coral": lambda source, target: weight * coral(source[0], target[0]),
        "dann": lambda source, target: domain_loss(source[2], target[2]),
    }

    def adapted(outputs: Outputs, labels: Tensor, from_source: Tensor) -> dict[str, Tensor]:
        labeled = labels != UNLABELED
        parts = loss(outputs[0][labeled], labels[labeled])
        source, target = ((a[rows], b[rows], c[rows]) for a, b, c in [outputs] for rows in (from_source, ~labeled))
        parts |= {method: distances[method](source, target)}
        return {name: part.mean().expand(len(labels)) for name, part in parts.items()}

    return adapted


def refuse_odd_batches(method: str, batch_size: int, accumulate: int, processes: int) -> None:
    """Refuse a batch of which a micro-batch would have no pairs of images to compare.

    Raises:
        UserError: it can't be divided into pairs for each process and micro-batch.
    """
    least = 2 * accumulate * processes
    if batch_size % least:
        raise UserError(
            f"finetune.adaptation = {method} compares pairs of images in every part of a batch: make "
            f"finetune.batch_size = {batch_size} a multiple of {least} (two for each of finetune.accumulate and of the "
            "processes)."
        )
