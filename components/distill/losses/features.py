"""What the student can learn from the teacher's layers; the teacher must be there while it learns."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.core.models.precision import single_precision

_PYRAMID = (4, 2, 1)


@single_precision
def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features: FitNets' hints (Romero et al. 2015, equation 3).

    The paper has half the sum; the mean is what the published weight of 100 belongs to (Tian et al. 2020).

    Args:
        student: features [B, …] that an adapter has brought to the teacher's shape.
        teacher: features [B, …].

    Returns:
        [B], 0 where the two agree.
    """
    return (student - teacher).square().flatten(1).mean(1)


@single_precision
def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the normalised attention maps (Zagoruyko and Komodakis 2017, equation 2).

    A map says where the activations are: the mean over the channels of their squares, at length 1. Channels may differ
    in number; the larger map is pooled to the smaller. Equation 2 has the length of the difference; its mean square is
    the authors' code, and what the published weight of 1000 belongs to.

    Args:
        student: feature maps [B, C, H, W].
        teacher: feature maps [B, C', H', W'].

    Returns:
        [B], 0 where the maps agree up to their scale.
    """
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return (_attention(student, size) - _attention(teacher, size)).square().mean(1)


def _attention(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2:] != size:
        features = F.adaptive_avg_pool2d(features, size)
    return F.normalize(features.square().mean(1).flatten(1))


@single_precision
def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Which images of a batch activate alike: ``‖G_t - G_s‖²_F / B²`` (Tung and Mori 2019, section 3).

    G is the matrix of the images' scalar products, its rows at length 1. Features may differ in shape.

    Args:
        student: features [B, …].
        teacher: features [B, …].

    Returns:
        [], because it is of pairs of images; 0 where the two agree.
    """
    return (_similarity(teacher) - _similarity(student)).square().mean()


def _similarity(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T)


@single_precision
def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of ReviewKD: squared differences at ever coarser grids (Chen et al. 2021, section 3.4).

    The weighted mean over the map itself (weight 1) and its averages over 4, 2 and 1 squares a side (each half the
    weight of the one before), of which those that are no coarser than the map are left out.

    Args:
        student: fused feature maps [B, C, H, W], from :class:`ReviewFusion`.
        teacher: feature maps [B, C, H, W].

    Returns:
        [B], 0 where the two agree.
    """
    total, weight, weights = fitnet(student, teacher), 1.0, 1.0
    for side in (side for side in _PYRAMID if side < student.shape[2]):
        weight /= 2
        coarse = (F.adaptive_avg_pool2d(features, side) for features in (student, teacher))
        total = total + weight * fitnet(*coarse)
        weights += weight
    return total / weights


class Fusion(nn.Module):
    """Attention-based fusion: one stage's features joined with what the deeper ones left (Chen et al. 2021, figure 4a).

    Args:
        in_channels: of this stage of the student.
        mid_channels: in which stages are joined.
        out_channels: of the teacher's stage that it is compared with.
        joins: whether there is a deeper stage.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, joins: bool) -> None:
        super().__init__()
        enter = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        leave = nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False)
        for convolution in (enter, leave):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.enter = nn.Sequential(enter, nn.BatchNorm2d(mid_channels))
        self.leave = nn.Sequential(leave, nn.BatchNorm2d(out_channels))
        self.attention = nn.Sequential(nn.Conv2d(2 * mid_channels, 2, 1), nn.Sigmoid()) if joins else None

    def forward(self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features [B, C, H, W] as the teacher's [B, C', *size], and what the next shallower stage is joined with."""
        x = self.enter(features)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            share = self.attention(torch.cat([x, deeper], 1))
            x = x * share[:, :1] + deeper * share[:, 1:]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.leave(x), x


class ReviewFusion(nn.Module):
    """What ReviewKD puts between the student's stages and the teacher's: each stage reviews the deeper ones.

    Args:
        student_channels: of the student's stages, from shallow to deep.
        teacher_channels: of the teacher's stages that they are compared with.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        mid, last = min(512, student_channels[-1]), len(student_channels) - 1
        pairs = zip(student_channels, teacher_channels, strict=True)
        self.stages = nn.ModuleList(Fusion(own, mid, other, i < last) for i, (own, other) in enumerate(pairs))

    def forward(self, student: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The student's feature maps, from shallow to deep, at the teacher's channels and ``sizes`` (height, width)."""
        fused: list[Tensor] = []
        deeper: Tensor | None = None
        for stage, features, size in reversed(list(zip(self.stages, student, sizes, strict=True))):
            out, deeper = stage(features, deeper, size)
            fused.insert(0, out)
        return fused
