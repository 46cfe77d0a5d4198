"""Several teachers as one: logits that any of the losses can be computed from."""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.distill.losses.precision import single_precision


@single_precision
def average(logits: Tensor) -> Tensor:
    """The teachers' mean logits, whose softmax is the geometric mean of theirs (Hinton et al. 2015, section 1).

    Args:
        logits: of M teachers [M, B, K].

    Returns:
        [B, K], for any temperature.
    """
    return logits.mean(0)


@single_precision
def confidence_weighted(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The teachers' soft labels, weighted image by image by how right each is (Zhang et al. 2022, equations 2 to 4).

    A teacher's weight is ``(1 - exp(L) / Σ exp(L)) / (M - 1)``, with L its cross-entropy with the label. Without a
    label, L is its entropy: how wrong it expects to be, which trusts the surest teacher (Kwon et al. 2020).

    Args:
        logits: of M teachers [M, B, K].
        labels: classes [B], negative where an image has none, or probabilities [B, K].
        temperature: T > 0 at which the soft labels are mixed.

    Returns:
        [B, K]: logits whose softmax at T is the weighted mean of the teachers' softmaxes at T, so that ``kd`` of them
        is the paper's loss less a constant.
    """
    if len(logits) == 1:
        return logits[0]
    weights = (1 - F.softmax(_wrongness(logits, labels), 0)) / (len(logits) - 1)
    return torch.logsumexp(F.log_softmax(logits / temperature, 2) + weights.log()[..., None], 0) * temperature


def _wrongness(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each teacher with the label, or its entropy where there is none: [M, B]."""
    log_probabilities = F.log_softmax(logits, 2)
    if labels.ndim == 2:
        return -(log_probabilities * labels).sum(2)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(2)
    of_label = log_probabilities.gather(2, labels.clamp(min=0).expand(len(logits), -1)[..., None])[..., 0]
    return torch.where(labels >= 0, -of_label, entropy)
