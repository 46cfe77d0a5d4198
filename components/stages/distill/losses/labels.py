"""The loss of the hard labels, and the labels of mixed and unlabeled images.

``labels`` are classes [B], or probabilities [B, K] of mixed views, and anything where an image has none; ``known`` is
:func:`share_of_labels` [B].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.training.balance import adjusted


def hard_loss(
    student: Tensor, labels: Tensor, known: Tensor, weight: float, log_priors: Tensor | None = None
) -> Tensor:
    """The weighted cross-entropy of logits [B, K] with the hard labels, of the images that have one: [B].

    ``log_priors`` [K] are those of :func:`reflux.components.core.training.balance.log_priors_for`.
    """
    return weight * known * F.cross_entropy(adjusted(student, log_priors), labels, reduction="none")


def mixture(own: Tensor, partner: Tensor, share: Tensor, temperature: float) -> Tensor:
    """Logits [B, K] whose softmax at a temperature is the mixture of two logits' softmaxes at it.

    Args:
        own: logits [B, K].
        partner: logits [B, K].
        share: of ``own`` in the mixture [B], from 0 to 1.
        temperature: T > 0.
    """
    one = F.log_softmax(own / temperature, dim=1) + share.log()[:, None]
    two = F.log_softmax(partner / temperature, dim=1) + (1 - share).log()[:, None]
    return torch.logaddexp(one, two) * temperature


def share_of_labels(labels: Tensor) -> Tensor:
    """Weights [B] that turn the mean over a batch into the mean over its labeled images, those of labels >= 0."""
    known = (labels >= 0).float()
    return known / known.mean().clamp(min=1 / len(labels))


def labels_or_prediction(labels: Tensor, known: Tensor, teacher: Tensor) -> Tensor:
    """The labels, and where an image has none the class of the teacher's largest logit."""
    prediction = teacher.argmax(1)
    if labels.ndim == 2:
        return torch.where(known[:, None] > 0, labels, F.one_hot(prediction, labels.shape[1]).to(labels))
    return torch.where(known > 0, labels, prediction)
