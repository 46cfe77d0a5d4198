"""Distillation losses as pure functions of logits."""

from torch import Tensor
from torch.nn import functional as F


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)`` at temperature T (Hinton et al. 2015, section 2).

    The mean is over the batch and not over the classes too (``batchmean``), and T² keeps the gradient's size when T
    changes, so that weights and temperature can be chosen apart.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T > 0.

    Returns:
        A scalar, 0 where the two agree.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def total_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    label_weight: float,
    teacher_weight: float,
) -> Tensor:
    """``label_weight · CE + teacher_weight · T² · KL``; the cross-entropy is over the images that have a label.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: [B], negative where an image has none.
        temperature: T > 0.
        label_weight: weight of the hard labels.
        teacher_weight: weight of the soft labels.

    Returns:
        A scalar.
    """
    total = teacher_weight * soft_label_loss(student, teacher, temperature)
    known = labels >= 0
    if label_weight and bool(known.any()):
        total = total + label_weight * F.cross_entropy(student[known], labels[known])
    return total
