"""DANN: features from which a discriminator can't tell the domain (Ganin et al. 2016)."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

_STEEPNESS = 10.0  # γ of the paper, section 5.2.2
_WIDTH = 1024  # of its discriminator for pretrained networks


def strength(progress: float) -> float:
    """The factor λ of the reversed gradient, ``2 / (1 + exp(-10 p)) - 1``: from 0 at the start to nearly 1.

    Args:
        progress: p, the share of the steps that are done, from 0 to 1.
    """
    return 2 / (1 + math.exp(-_STEEPNESS * progress)) - 1


def reversed_gradient(features: Tensor, factor: Tensor) -> Tensor:
    """The features as they are, to the bit, whose gradient is multiplied by ``-factor`` [] on its way back."""
    fixed = features.detach()
    return fixed + factor * (fixed - features)


def discriminator(width: int) -> nn.Module:
    """A network that tells the domain from features [N, width]: the logit [N, 1] of being the source's."""
    return nn.Sequential(
        nn.Linear(width, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1)
    )


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """The mean of both domains' cross-entropy, of the discriminator's logits [N] and [M] for being the source's.

    Returns:
        [], ln 2 where it can't tell them apart.
    """
    return (F.softplus(-source).mean() + F.softplus(target).mean()) / 2
