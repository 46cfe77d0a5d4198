"""Gradual unfreezing: from the head down, one more layer group an epoch (Howard and Ruder 2018, section 3.3)."""

from collections.abc import Sequence

from timm.models import group_parameters
from timm.optim import auto_group_layers
from torch import nn


def layer_groups(net: nn.Module) -> list[list[nn.Parameter]]:
    """A network's parameters in timm's layer groups, from the input to the head.

    They are the coarse ones: the stages of a convolutional network, the blocks of a transformer.
    """
    if hasattr(net, "group_matcher"):
        group_of = group_parameters(net, net.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    else:
        group_of = auto_group_layers(net)
    top = max(group_of.values())
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        groups.setdefault(group_of.get(name, top), []).append(parameter)
    return [groups[number] for number in sorted(groups)]


def frozen(groups: Sequence[Sequence[nn.Parameter]], step: int, epoch: int) -> list[nn.Parameter]:
    """The parameters that a step leaves as they are: all but those of the top ``1 + step // epoch`` groups.

    Args:
        groups: from the input to the head.
        step: from 0.
        epoch: steps of an epoch.
    """
    below = max(0, len(groups) - 1 - step // epoch)
    return [parameter for group in groups[:below] for parameter in group]
