"""Losses of the teacher's features, which need the teacher during training.

They take features [B, …] of student and teacher, maps as [B, C, H, W], and return [B], 0 where the two agree, if
nothing else is said.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.precision import single_precision
from reflux.components.stages.distill.losses.register import loss
from reflux.components.stages.distill.modules import OrthogonalProjectors, Regressors, ReviewFusion

_PYRAMID = (4, 2, 1)
_VARIANCE = 1e-5  # as BatchNorm adds, for features that hardly vary


@loss("fitnet", features="alike", adapter=Regressors)
@single_precision
def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features: FitNets' hints (Romero et al. 2015, equation 3).

    The paper has half the sum; the published weight of 100 belongs to the mean (Tian et al. 2020). An adapter has
    brought the student's features to the teacher's channels; the larger of two maps is pooled to the smaller.
    """
    student, teacher = _at_one_size(student, teacher)
    return (student - teacher).square().flatten(1).mean(1)


def _at_one_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of two sizes, the larger pooled to the smaller; vectors as they are."""
    if one.ndim < 4 or one.shape[2:] == other.shape[2:]:
        return one, other
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


@loss("attention-transfer", features="maps")
@single_precision
def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the normalized attention maps (Zagoruyko and Komodakis 2017, equation 2).

    A map shows where the activations are: the mean over the channels of their squares, at length 1. The numbers of
    channels may differ; the larger map is pooled to the smaller. Equation 2 has the length of the difference; the
    authors' code has its mean square, which the published weight of 1000 belongs to. It is 0 where the maps agree up to
    their scale.
    """
    student, teacher = _at_one_size(student, teacher)
    return (_attention(student) - _attention(teacher)).square().mean(1)


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(1).flatten(1))


@loss("similarity-preserving")
@single_precision
def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference in which images of a batch activate alike: ``‖G_t - G_s‖²_F / B²`` (Tung and Mori 2019, section 3).

    G is the matrix of the images' scalar products, its rows at length 1. The features may have different shapes. It
    returns [], because it compares pairs of images.
    """
    return (_similarity(teacher) - _similarity(student)).square().mean()


def _similarity(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T)


@loss("vkd", features="alike", adapter=OrthogonalProjectors)
@single_precision
def vkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference from the teacher's standardized features (Miles, Elezi and Deng 2024).

    An orthogonal projector has brought the student's features to the teacher's channels. Each of the teacher's is taken
    to mean 0 and variance 1 over the images, and the pixels of maps, that are computed at once; one that is the same in
    all of them is 0.
    """
    student, teacher = _at_one_size(student, teacher)
    var, mean = torch.var_mean(teacher, [0, *range(2, teacher.ndim)], correction=0, keepdim=True)
    return (student - (teacher - mean) * (var + _VARIANCE).rsqrt()).square().flatten(1).mean(1)


@loss("reviewkd", adapter=ReviewFusion)
@single_precision
def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of ReviewKD: squared differences at ever coarser grids (Chen et al. 2021, section 3.4).

    A weighted mean over the map itself (weight 1) and its averages on grids of 4, 2 and 1 squares a side (each with
    half the weight of the one before); grids that are no coarser than the map are left out. :class:`ReviewFusion` has
    brought the student's features to the teacher's shape; vectors are compared as they are.
    """
    total, weight, weights = fitnet(student, teacher), 1.0, 1.0
    height = student.shape[2] if student.ndim == 4 else 1
    for side in (side for side in _PYRAMID if side < height):
        weight /= 2
        coarse = (F.adaptive_avg_pool2d(features, side) for features in (student, teacher))
        total = total + weight * fitnet(*coarse)
        weights += weight
    return total / weights
