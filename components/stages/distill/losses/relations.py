"""Losses of how the teacher places images relative to each other, whatever the number of features.

They take embeddings [B, …] of student and teacher, and return [], as they compare images; 0 where the two agree.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.precision import single_precision
from reflux.components.stages.distill.losses.register import loss

_EPS = 1e-12


@loss("rkd")
def rkd(student: Tensor, teacher: Tensor, distance: float, angle: float) -> Tensor:
    """``distance · L_distance + angle · L_angle`` (Park et al. 2019, section 3.2)."""
    total = student.new_zeros(())
    if distance:
        total = total + distance * rkd_distance(student, teacher)
    if angle:
        total = total + angle * rkd_angle(student, teacher)
    return total


@single_precision
def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the images' distances, relative to their mean (Park et al. 2019, equations 5 to 8).

    The mean is over all B² pairs, as in the authors' code. Rotating, moving or scaling an embedding does not change it.
    """
    return F.smooth_l1_loss(_distances(student), _distances(teacher))


def _distances(embeddings: Tensor) -> Tensor:
    flat = embeddings.flatten(1)
    # Not by a matrix product: for close images it leaves the rounding error, and for equal ones a root of it.
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    apart = (distances > 0).sum().clamp(min=1)
    return distances / (distances.sum() / apart).clamp(min=_EPS)


@single_precision
def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles between triples of images (Park et al. 2019, equations 8 to 10).

    The mean is over all B³ triples, as in the authors' code. Rotating, moving or scaling an embedding does not change
    it. It takes at least ``4 · B² · (B + D)`` bytes for each of the two: half a GiB at B = 512.
    """
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _cosines(embeddings: Tensor) -> Tensor:
    flat = embeddings.flatten(1)
    differences = flat[None] - flat[:, None]
    lengths = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
    # Two images at the same place have no direction; dividing by a tiny length would make a huge gradient.
    directions = torch.where(lengths > 0, differences / lengths.clamp(min=_EPS), 0)
    return directions @ directions.transpose(1, 2)
