"""L2-SP: the backbone is pulled to its pretrained weights, not to zero (Li, Grandvalet and Davoine 2018)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reflux.components.core.training.loop import Loss


def backbone(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters below the head of one of timm's networks or the small ones, by name."""
    head = net.get_classifier()  # type: ignore[operator]
    heads = head if isinstance(head, tuple) else (head,)  # a distilled DeiT has two
    new = {id(parameter) for each in heads for parameter in each.parameters()}
    return {name: parameter for name, parameter in net.named_parameters() if id(parameter) not in new}


def l2_sp(weights: Iterable[Tensor], start: Iterable[Tensor], alpha: float) -> Tensor:
    """``α/2 ‖w - w⁰‖²``; the paper's second term, ``β/2 ‖w‖²`` of the new head, is ordinary weight decay.

    Args:
        weights: those that the pretrained network brought.
        start: their values as they were pretrained, in the same order and shapes.
        alpha: the strength.

    Returns:
        [], 0 at the pretrained weights.
    """
    squares = [(now - then).square().sum() for now, then in zip(weights, start, strict=True)]
    return alpha / 2 * torch.stack(squares).sum()


def with_l2_sp(loss: Loss, weights: Iterable[nn.Parameter], alpha: float) -> Loss:
    """Add the part ``l2-sp`` to a loss, with the weights' values of now as the starting point.

    Call it on the pretrained network, before a checkpoint is loaded into it.
    """
    weights = list(weights)
    start = [weight.detach().clone() for weight in weights]

    def regularized(logits: Tensor, *targets: Tensor) -> dict[str, Tensor]:
        penalty = l2_sp(weights, start, alpha).expand(len(logits))  # the same for each image: its mean is itself
        return loss(logits, *targets) | {"l2-sp": penalty}

    return regularized
