"""The small CIFAR-style networks of the distillation literature, built by name like timm's models.

ResNet-6n+2 (He et al. 2016, section 4.2), Wide ResNet (Zagoruyko and Komodakis 2016), the VGGs of CRD (Tian et al.
2020) and the MLPs of Hinton et al. 2015, section 3. All take images of any size, and share timm's
``forward_features`` / ``forward_head`` names. A name with a width multiplier, such as ``resnet8_slim_x0.75``, is the
same network with so many times the channels (Howard et al. 2017).
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.registry import Registry


class SmallNet(nn.Module):
    """A convolutional trunk, global average pooling and one linear head.

    Args:
        trunk: the layers before the pooling.
        num_features: channels of its last.
        num_classes: logits.
        ends: the number of the layer at which each stage ends, the stem first.
    """

    def __init__(self, trunk: nn.Sequential, num_features: int, num_classes: int, ends: list[int]) -> None:
        super().__init__()
        self.trunk, self.num_features = trunk, num_features
        self.feature_info = [{"module": f"trunk.{end}"} for end in ends]  # as in timm's networks
        self.head = nn.Linear(num_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Tell timm the order of the layers, for the decay of their learning rates; ``coarse`` makes no difference."""
        return {"stem": r"^trunk\.0\.", "blocks": r"^trunk\.(\d+)\."}

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.head = nn.Linear(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def conv_bn(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its batch normalization."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a residual connection."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, channels, 3, stride)
        self.second = conv_bn(channels, channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, channels, 1, stride)
        self.relu = nn.ReLU()  # a module, so that features before it can be taken

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class WideBlock(nn.Module):
    """The pre-activation block of Wide ResNet, without dropout."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active))


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Channels times a width multiplier, in fours: what vector instructions take at once."""
    return [max(4, 4 * round(each * width / 4)) if width != 1 else each for each in channels]


def resnet(
    blocks: int,
    widths: tuple[int, ...],
    in_chans: int,
    num_classes: int,
    stem_kernel: int = 3,
    stem_stride: int = 1,
    width: float = 1.0,
) -> SmallNet:
    """A residual network of ``len(widths) - 1`` stages of ``blocks`` blocks; ``widths[0]`` is the stem's."""
    widths = tuple(scaled(widths, width))
    layers: list[nn.Module] = [conv_bn(in_chans, widths[0], stem_kernel, stem_stride), nn.ReLU()]
    previous, ends = widths[0], [1]
    for stage, channels in enumerate(widths[1:]):
        for block in range(blocks):
            layers.append(BasicBlock(previous, channels, 2 if stage > 0 and block == 0 else 1))
            previous = channels
        ends.append(len(layers) - 1)
    return SmallNet(_initialized(nn.Sequential(*layers)), previous, num_classes, ends)


def wide_resnet(blocks: int, widen: int, in_chans: int, num_classes: int, width: float = 1.0) -> SmallNet:
    """WRN-(6·blocks+4)-widen."""
    stem, *stages = scaled((16, 16 * widen, 32 * widen, 64 * widen), width)
    layers: list[nn.Module] = [nn.Conv2d(in_chans, stem, 3, 1, 1, bias=False)]
    previous, ends = stem, [0]
    for stage, channels in enumerate(stages):
        for block in range(blocks):
            layers.append(WideBlock(previous, channels, 2 if stage > 0 and block == 0 else 1))
            previous = channels
        ends.append(len(layers) - 1)
    layers += [nn.BatchNorm2d(previous), nn.ReLU()]
    ends[-1] = len(layers) - 1  # the last stage's activation comes after its blocks
    return SmallNet(_initialized(nn.Sequential(*layers)), previous, num_classes, ends)


def vgg(convolutions: int, in_chans: int, num_classes: int, width: float = 1.0) -> SmallNet:
    """CIFAR VGG of five stages of 3x3 convolutions, the first three followed by pooling."""
    layers: list[nn.Module] = []
    previous, ends = in_chans, []
    for stage, channels in enumerate(scaled((64, 128, 256, 512, 512), width)):
        for _ in range(convolutions):
            layers += [conv_bn(previous, channels), nn.ReLU()]
            previous = channels
        ends.append(len(layers) - 1)
        if stage < 3:
            layers.append(nn.MaxPool2d(2))
    return SmallNet(_initialized(nn.Sequential(*layers)), previous, num_classes, ends)


class Pixels(nn.Module):
    """Images [B, C, H, W] as rows [B, C * side * side], brought to ``side`` first where they differ."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)
        return x.flatten(1)


class Dropout(nn.Module):
    """Dropout that draws a byte a value: four times as fast as torch's, which took a quarter of the MLP's training.

    Args:
        probability: of a value to be zeroed; it is rounded to a multiple of 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped))


def mlp(units: int, dropout: bool, in_chans: int, num_classes: int, width: float = 1.0) -> SmallNet:
    """Two hidden layers of rectified linear units for 28x28 pixels.

    Its features are [B, units, 1, 1]. Dropout is that of Hinton et al. 2012: a fifth of the pixels, half of the units.
    """
    side, [units] = 28, scaled([units], width)
    layers: list[nn.Module] = [Pixels(side)]
    ends = []
    for place, previous in enumerate((in_chans * side**2, units)):
        layers += [Dropout(0.5 if place else 0.2)] if dropout else []
        layers += [nn.Linear(previous, units), nn.ReLU()]
        ends.append(len(layers) - 1)
    layers += [Dropout(0.5)] if dropout else []
    layers.append(nn.Unflatten(1, (units, 1, 1)))
    return SmallNet(nn.Sequential(*layers), units, num_classes, ends)


def _initialized(trunk: nn.Sequential) -> nn.Sequential:
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return trunk


SMALL_NETS: Registry[Callable[..., SmallNet]] = Registry(
    "networks",
    resnet8=partial(resnet, 1, (16, 16, 32, 64)),
    resnet14=partial(resnet, 2, (16, 16, 32, 64)),
    resnet20=partial(resnet, 3, (16, 16, 32, 64)),
    resnet32=partial(resnet, 5, (16, 16, 32, 64)),
    resnet56=partial(resnet, 9, (16, 16, 32, 64)),
    resnet110=partial(resnet, 18, (16, 16, 32, 64)),
    resnet8x4=partial(resnet, 1, (32, 64, 128, 256)),
    resnet32x4=partial(resnet, 5, (32, 64, 128, 256)),
    wrn_16_1=partial(wide_resnet, 2, 1),
    wrn_16_2=partial(wide_resnet, 2, 2),
    wrn_40_1=partial(wide_resnet, 6, 1),
    wrn_40_2=partial(wide_resnet, 6, 2),
    vgg8=partial(vgg, 1),
    vgg13_cifar=partial(vgg, 2),
    mlp_30=partial(mlp, 30, False),
    mlp_300=partial(mlp, 300, False),
    mlp_800=partial(mlp, 800, False),
    mlp_1200_dropout=partial(mlp, 1200, True),
    # For phones: a file under 200 KB, and a stem of stride 2 that makes it four times as fast.
    resnet8_slim=partial(resnet, 1, (16, 16, 24, 48), stem_kernel=5, stem_stride=2),
    resnet14_slim=partial(resnet, 2, (16, 16, 24, 48), stem_kernel=5, stem_stride=2),
    resnet8_thin=partial(resnet, 1, (12, 12, 16, 32), stem_kernel=5, stem_stride=2),
    resnet8_tiny=partial(resnet, 1, (8, 8, 12, 24), stem_kernel=5, stem_stride=2),
)

Builder = TypeVar("Builder", bound=Callable[..., SmallNet])


def network(name: str) -> Callable[[Builder], Builder]:
    """Register a network's builder, which is called with ``in_chans`` and ``num_classes``, and ``width`` if it isn't 1.

    Raises:
        ValueError: the name is taken.
    """
    return SMALL_NETS.registers(name, lambda builder: builder)


_WITH_WIDTH = re.compile(r"(.+)_x(\d+(?:\.\d+)?)")


def base_and_width(name: str) -> tuple[str, float]:
    """The network and the width multiplier that a name says: ``resnet8_slim_x0.75`` is resnet8_slim at 0.75."""
    match = _WITH_WIDTH.fullmatch(name)
    return (match[1], float(match[2])) if match and match[1] in SMALL_NETS and float(match[2]) else (name, 1.0)


def with_width(base: str, width: float) -> str:
    """The name of one of ``SMALL_NETS`` with a width multiplier; see :func:`base_and_width`."""
    return base if width == 1 else f"{base}_x{width:g}"


def small_net(name: str) -> Callable[..., SmallNet] | None:
    """Find the builder of a small network by its name, with a width multiplier or without; None of others."""
    base, width = base_and_width(name)
    if base not in SMALL_NETS:
        return None
    return SMALL_NETS[base] if width == 1 else partial(SMALL_NETS[base], width=width)
