"""The modules that train in distillation: the student with its adapters and memories, or with its peers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal

from reflux.components.modalities.image.layers import Layer, logits_and_features
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.models.small_nets import conv_bn

Shape = tuple[int, ...]


class DistillModule(nn.Module):
    """A student with what trains along with it.

    In training it returns the student's logits [B, K] and, loss by loss, the features of its layers through the loss's
    adapter, where it has one; in eval mode the logits alone.
    """

    def __init__(
        self,
        student: PixelModel,
        layers: Sequence[Sequence[Layer]],
        adapters: Sequence[nn.Module | None],
        memories: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.student, self._layers = student, layers
        self.adapters = nn.ModuleList(adapter or nn.Identity() for adapter in adapters)
        self.memories = nn.ModuleList(memories)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.student(pixels)
        logits, *features = logits_and_features(self.student, [each for own in self._layers for each in own], pixels)
        outputs = [logits]
        for layers, adapter in zip(self._layers, self.adapters, strict=True):
            own, features = features[: len(layers)], features[len(layers) :]
            outputs += adapter(own)
        return tuple(outputs)


class Peers(nn.Module):
    """Students that learn from each other; in eval mode it returns the first one's logits alone."""

    def __init__(self, student: PixelModel, others: Sequence[PixelModel]) -> None:
        super().__init__()
        self.student, self.others = student, nn.ModuleList(others)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.student(pixels)
        return tuple(net(pixels) for net in (self.student, *self.others))


class Regressors(nn.Module):
    """Bring features of shapes (C, H, W) or (D,) to the teacher's channels, or dimensions: FitNet's regressors.

    A map's is a convolution, BatchNorm and, where the teacher's features are ``rectified``, a ReLU: regressor and
    teacher need the same nonlinearity (Romero et al. 2015, section 2.2).
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape], rectified: Sequence[bool]) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            nn.Sequential(conv_bn(own[0], other[0], 1), nn.ReLU() if relu else nn.Identity())
            if len(own) == 3
            else nn.Linear(own[0], other[0])
            for own, other, relu in zip(student, teacher, rectified, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(regressor(feature) for regressor, feature in zip(self.each, features, strict=True))


class OrthogonalProjectors(nn.Module):
    """Bring features of shapes (C, H, W) or (D,) to the teacher's channels, or dimensions, by an isometry and a shift.

    The columns of a projector's weight are orthonormal (its rows, where the teacher has fewer), and stay so while it is
    trained: it turns the student's features into the teacher's space and can't stretch them, so that what it can't
    explain the student must learn (Miles, Elezi and Deng 2024, section 3). The shift is for features that end with a
    ReLU, which have no mean of 0.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape], _rectified: Sequence[bool] = ()) -> None:
        super().__init__()
        pairs = zip(student, teacher, strict=True)
        self.each = nn.ModuleList(orthogonal(nn.Linear(own[0], other[0])) for own, other in pairs)

    def no_weight_decay(self) -> set[str]:
        """All of them: decay would not shrink an orthogonal matrix, but break torch's form of it, whose signs are 1."""
        return {name for name, _ in self.named_parameters()}

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            projector(feature.movedim(1, -1)).movedim(-1, 1)
            for projector, feature in zip(self.each, features, strict=True)
        )


class ProbedStudent(nn.Module):
    """A student whose backbone learns features, and whose head learns the labels from them without changing them.

    In training it returns logits [B, K], through which no gradient reaches the backbone, and the pooled features as the
    projector brings them to the teacher's space; in eval mode the logits alone: they say how good the features are.
    """

    def __init__(self, student: PixelModel, projector: nn.Module | None) -> None:
        super().__init__()
        self.student, self.projector = student, projector or nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.student(pixels)
        features = self.student.features(pixels)
        head = self.student.net.get_classifier()  # type: ignore[operator]
        return head(features.detach()).float(), *self.projector([features])


class Fusion(nn.Module):
    """Attention-based fusion: one stage's features joined with what the deeper ones left (Chen et al. 2021, figure 4a).

    The stage ``joins`` unless there is no deeper one; ``mid_channels`` are those in which stages are joined.
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
        """Bring features [B, C, H, W] to [B, C', *size]; the second output joins the next shallower stage."""
        x = self.enter(features)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            share = self.attention(torch.cat([x, deeper], 1))
            x = x * share[:, :1] + deeper * share[:, 1:]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.leave(x), x


class ReviewFusion(nn.Module):
    """ReviewKD's adapter: each stage of the student reviews the deeper ones, from shallow to deep.

    Shapes are (C, H, W), or (D,) of vectors, which count as maps of one pixel.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape], _rectified: Sequence[bool] = ()) -> None:
        super().__init__()
        channels, last = min(512, student[-1][0]), len(student) - 1
        pairs = enumerate(zip(student, teacher, strict=True))
        self.stages = nn.ModuleList(Fusion(own[0], channels, other[0], i < last) for i, (own, other) in pairs)
        self._shapes = list(teacher)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bring the student's features, from shallow to deep, to the teacher's shapes."""
        fused: list[Tensor] = []
        deeper: Tensor | None = None
        for stage, own, shape in reversed(list(zip(self.stages, features, self._shapes, strict=True))):
            height, width = shape[1:] or (1, 1)
            out, deeper = stage(own if own.ndim == 4 else own[..., None, None], deeper, (height, width))
            fused.insert(0, out.reshape(len(out), *shape))
        return tuple(fused)
