"""Structured pruning of a trained network by torch-pruning: whole channels go, so that any runtime gains by it."""

from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import PixelModel, network, parameter_count
from reflux.components.modalities.image.models.widths import set_widths

_MULTIPLE = 4  # of channels that a layer keeps: what vector instructions take at once, as in the small nets
_TOLERANCE = 1e-4


def prune(model: PixelModel, share: float) -> PixelModel:
    """Remove the weakest channels of every layer but the head.

    With a channel go its weights in all layers that read it or whose channels are added to it (Fang et al. 2023,
    DepGraph, https://arxiv.org/abs/2301.12900). The weakest have the smallest sum of squared weights, on the mean of
    these layers. A layer keeps a multiple of four channels, rounded down, and all of them where that would be none.

    Args:
        model: trained; it is not changed.
        share: of the channels of each layer, between 0 and 1.

    Returns:
        The narrower network, in eval mode. It is worse than the one that it was, until it is trained again.

    Raises:
        UserError: torch-pruning is not installed, or can't make a network of this kind narrower.
    """
    _check_installed()
    spec = model.spec
    try:
        narrow = _without_channels(model, share)
        slim = network(spec.name, len(spec.classes), spec.in_chans)
        set_widths(slim, narrow.state_dict())
        slim.load_state_dict(narrow.state_dict())
        _require_same(slim, narrow, _example(model))
    except Exception as error:  # torch-pruning raises whatever an operator that it doesn't know leads it to
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise UserError(
            f"student.prune can't make {spec.name} narrower ({first}): set it to 0, or take another student.model."
        ) from error
    if parameter_count(slim) == parameter_count(model):
        raise UserError(
            f"student.prune = {share:g} removes no channel of {spec.name}, whose layers keep a multiple of "
            f"{_MULTIPLE}: lower it or set it to 0."
        )
    return PixelModel(slim.eval(), replace(spec, pruned=share))


def _check_installed() -> None:
    """Look for torch-pruning.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("torch_pruning") is None:
        raise UserError(
            "student.prune needs the package torch-pruning: `pip install torch-pruning`, or set student.prune to 0."
        )


def _without_channels(model: PixelModel, share: float) -> nn.Module:
    import torch_pruning

    net: Any = deepcopy(model.net).eval()
    pruner = torch_pruning.BasePruner(
        net,
        _example(model),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=[net.get_classifier()],
        round_to=_MULTIPLE,
    )
    pruner.step()
    return net


def _example(model: PixelModel) -> torch.Tensor:
    size = model.spec.image_size
    return torch.rand(2, model.spec.in_chans, size, size, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _require_same(rebuilt: nn.Module, pruned: nn.Module, images: torch.Tensor) -> None:
    """Refuse a network that answers otherwise once it was built again by its name and its tensors' shapes.

    Raises:
        ValueError: it does.
    """
    if not torch.allclose(rebuilt.eval()(images), pruned(images), atol=_TOLERANCE):
        raise ValueError("it answers otherwise when it is loaded again")
