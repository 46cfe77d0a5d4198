"""The first stages of one of timm's networks as a network of their own: a student that can start pretrained.

A name such as ``tf_efficientnet_lite0_stages3`` is the network up to the third level of its features
(``feature_info`` of timm), average pooling and a linear head. Early layers are those that transfer best to other images
(Yosinski et al. 2014, arXiv:1411.1792), and those that weigh least.
"""

import re
from typing import Any

from torch import nn

from reflux.components.core.errors import UserError

_WITH_STAGES = re.compile(r"(.+)_stages(\d+)")


def whole_and_stages(name: str) -> tuple[str, int | None]:
    """The network and the number of its first stages that a name says; None for all of them."""
    match = _WITH_STAGES.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def cut(net: Any, name: str, num_classes: int) -> nn.Module:
    """Leave the first stages of a network, as its name says, with a new head; in place.

    Args:
        net: timm's network, whole.
        name: with or without a number of stages.
        num_classes: of the head. A network that stays whole keeps its own.

    Raises:
        UserError: it has no such stages.
    """
    whole, stages = whole_and_stages(name)
    if stages is None:
        return net
    levels = net.feature_info
    if not 1 <= stages <= len(levels):
        raise UserError(f"There is no {name}: {whole} has stages 1 to {len(levels)}.")
    net.prune_intermediate_layers([stages - 1], prune_norm=True, prune_head=True)
    net.feature_info = levels[:stages]
    net.num_features = net.head_hidden_size = levels[stages - 1]["num_chs"]
    net.reset_classifier(num_classes, "avg")
    return net
