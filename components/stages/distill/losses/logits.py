"""Losses of the teacher's logits alone, which can be computed from stored soft labels.

They take logits [B, K] of student and teacher, and a temperature T > 0 where they have one; they return [B], 0 where
the two agree, if nothing else is said.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.precision import single_precision
from reflux.components.stages.distill.losses.register import loss

# The authors' guards against a division by zero.
_STD_EPS, _COSINE_EPS = 1e-7, 1e-8


@loss("kd")
@single_precision
def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)`` at temperature T (Hinton, Vinyals and Dean 2015, section 2).

    It is a sum over the classes, so that its mean over the batch is torch's ``batchmean``. T² keeps the size of the
    gradient when T changes, so that weights and temperature can be chosen independently.
    """
    return _kl(F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)) * temperature**2


@loss("dkd", labels=True)
@single_precision
def dkd(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float) -> Tensor:
    """``T² · (α · TCKD + β · NCKD)``: KD with separate weights for its two parts (Zhao et al. 2022, equation 7).

    TCKD is the divergence of (p_y, 1 - p_y), NCKD that of the distributions over the other classes. KD is α = 1 and
    β = 1 - p_y of the teacher, image by image (equation 6). With two classes NCKD is 0, as there is only one other
    class: ``α · kd`` remains.

    The paper has hard labels only. For a label that is a distribution q (mixed views, smoothed labels), this is the
    expectation under q of the loss with each class as the label, like cross-entropy; a one-hot q gives the paper's.
    ``labels`` are classes [B], or probabilities [B, K].
    """
    if labels.ndim == 1:
        return _dkd_of_class(student, teacher, labels, temperature, alpha, beta)
    image, label = labels.nonzero(as_tuple=True)
    each = _dkd_of_class(student[image], teacher[image], label, temperature, alpha, beta)
    return torch.zeros_like(student[:, 0]).index_add(0, image, each * labels[image, label].to(each.dtype))


def _dkd_of_class(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    target_s, others_s = _decoupled(student / temperature, labels)
    target_t, others_t = _decoupled(teacher / temperature, labels)
    return (alpha * _kl(target_s, target_t) + beta * _kl(others_s, others_t)) * temperature**2


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of (p_y, 1 - p_y) [B, 2], and of the distribution over the other classes [B, K - 1]."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    # The label's column is left out, not lowered by a constant that large logits exceed; 1 - p_y is a sum, as the
    # difference loses all digits with a confident teacher.
    others = logits[~own].view(len(logits), -1)
    log_target, log_rest = logits[own], others.logsumexp(1)
    log_all = torch.logaddexp(log_target, log_rest)
    return torch.stack([log_target - log_all, log_rest - log_all], 1), F.log_softmax(others, 1)


@loss("dist")
@single_precision
def dist(student: Tensor, teacher: Tensor, temperature: float, beta: float, gamma: float) -> Tensor:
    """``T² · (β · (1 - mean_b ρ(rows)) + γ · (1 - mean_c ρ(columns)))`` (Huang et al. 2022, equations 8 to 10).

    ρ is Pearson's correlation of the probabilities: over the classes of an image (inter-class), and over the images of
    the batch, two or more, for a class (intra-class). It compares ranking and spacing, not the numbers: a positive
    scale or shift of the student's rows, or columns, does not change it.

    Returns:
        [], because the intra-class part compares the images of a batch; 0 where the two agree. A class that has the
        same probability in all images has no correlation and counts as 0.
    """
    mine, theirs = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return temperature**2 * (beta * uncorrelated(mine, theirs) + gamma * uncorrelated(mine.T, theirs.T))


def uncorrelated(one: Tensor, other: Tensor) -> Tensor:
    """1 - the mean over the rows of Pearson's correlation of [N, M] and [N, M]: [] (Huang et al. 2022, equation 7)."""
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    return 1 - F.cosine_similarity(one, other, dim=1, eps=_COSINE_EPS).mean()


@single_precision
def standardize(logits: Tensor) -> Tensor:
    """Z-scores of each image's logits [B, K] (Sun et al. 2024, algorithm 1); zeros where they are all equal.

    A modifier of the losses above: with it, the small student need not have logits as large as the teacher's. The hard
    labels' cross-entropy stays on the raw logits. The deviation is the sample's (K - 1), as in the authors' code and
    published numbers. With two classes only the order is left: not for binary tasks.
    """
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + _STD_EPS)


def temperature_for(classes: int) -> float:
    """The temperature of standardized logits that is as sharp for K classes as the paper's 2 is for its 100.

    The z-scores of a teacher that is sure of one class differ by √K, so that few classes need a lower temperature for
    the same largest probability, 0.60: ``√K / (5 + log((K - 1) / 99))``. With more than 100 it stays 2, as published.
    """
    return min(2.0, math.sqrt(classes) / (5 + math.log((classes - 1) / 99)))


@loss("mse-logits")
@single_precision
def mse_logits(student: Tensor, teacher: Tensor) -> Tensor:
    """``½ · mean_k (z_s - z_t)²``: logits matched directly (Ba and Caruana 2014, equation 1, over K).

    Divided by the number of classes, it is the limit of :func:`kd` of centered logits as T grows (Hinton et al. 2015,
    equation 4), and takes the same weight.
    """
    return (student - teacher).square().mean(1) / 2


@loss("pseudo-labels")
@single_precision
def pseudo_labels(student: Tensor, teacher: Tensor) -> Tensor:
    """``-log p_s(argmax z_t)``: cross-entropy with the teacher's class as a hard label (Lee 2013, equation 15).

    A second control: it learns from the same images as :func:`kd`, and of the teacher's answer only which class is
    first. It is 0 where the student is sure of that class, not where the two agree.
    """
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


def _kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    """Compute the divergence of the student from the teacher [B], from log-probabilities [B, K]."""
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
