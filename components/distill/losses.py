"""Distillation losses as pure functions of logits, a value an image: the training loop takes the mean of a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)`` at temperature T (Hinton et al. 2015, section 2).

    It is a sum over the classes, so that its mean over the batch is torch's ``batchmean``; T² keeps the gradient's size
    when T changes, so that weights and temperature can be chosen apart.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T > 0.

    Returns:
        [B], 0 where the two agree.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1) * temperature**2


def total_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    known: Tensor,
    temperature: float,
    label_weight: float,
    teacher_weight: float,
) -> Tensor:
    """``label_weight · CE + teacher_weight · T² · KL``; the cross-entropy is over the images that have a label.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: classes [B], or probabilities [B, K] of mixed views; any where an image has none.
        known: [B], from :func:`share_of_labels`.
        temperature: T > 0.
        label_weight: weight of the hard labels.
        teacher_weight: weight of the soft labels.

    Returns:
        [B].
    """
    total = teacher_weight * soft_label_loss(student, teacher, temperature)
    if label_weight:
        total = total + label_weight * known * F.cross_entropy(student, labels, reduction="none")
    return total


def mixture(own: Tensor, partner: Tensor, share: Tensor, temperature: float) -> Tensor:
    """Logits whose softmax at a temperature is the mixture of two softmaxes there.

    Args:
        own: logits [B, K].
        partner: logits [B, K].
        share: of ``own`` in the mixture [B], from 0 to 1.
        temperature: T > 0.

    Returns:
        [B, K].
    """
    one = F.log_softmax(own / temperature, dim=1) + share.log()[:, None]
    two = F.log_softmax(partner / temperature, dim=1) + (1 - share).log()[:, None]
    return torch.logaddexp(one, two) * temperature


def share_of_labels(labels: Tensor) -> Tensor:
    """What makes a mean over the whole batch a mean over its labelled images: 0 for the others [B].

    Args:
        labels: of the whole batch [B], negative where an image has none.
    """
    known = (labels >= 0).float()
    return known / known.mean().clamp(min=1 / len(labels))
