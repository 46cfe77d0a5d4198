"""The layers of a network by address, and their features through forward hooks.

An address is a module's path (``layer2.0.conv1``), ``stage:N`` (counted from 0, or from the end: ``stage:-1``; the
stages are those of timm's ``feature_info``) or ``pooled`` (the classifier's input).
"""

import difflib
import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.core.errors import UserError
from components.core.models.pixel_model import PixelModel
from components.core.models.precision import autocast


@dataclass(frozen=True)
class Layer:
    """A module in a network, by path, to take features from: its output, or its input (``before``)."""

    path: str
    before: bool = False


def stages(net: nn.Module) -> list[str]:
    """List the modules at which the network's stages end, by path; empty without timm's ``feature_info``."""
    return [stage["module"] for stage in getattr(net, "feature_info", [])]


def find_layer(model: PixelModel, address: str) -> Layer:
    """Find the layer that an address names.

    Raises:
        UserError: there is none; the message lists the stages.
    """
    net, name = model.net, model.spec.name
    if address == "pooled":
        head = net.get_classifier()  # type: ignore[operator]
        path = next((path for path, module in net.named_modules() if module is head), None)
        if path is None:
            raise UserError(f"{name} has no single classifier to take the input of: name a module's path.")
        return Layer(path, before=True)
    ends = stages(net)
    number = re.fullmatch(r"stage:(-?\d+)", address)
    if number:
        if -len(ends) <= int(number[1]) < len(ends):
            return Layer(ends[int(number[1])])
        raise UserError(f"{name} has no {address}: {_listed(ends)}.")
    paths = [path for path, _ in net.named_modules() if path]
    if address in paths:
        return Layer(address)
    near = difflib.get_close_matches(address, paths, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"{name} has no layer {address}{hint}: {_listed(ends)}.")


def _listed(ends: list[str]) -> str:
    if not ends:
        return "it has no list of stages, so name a module's path"
    return "its stages are " + ", ".join(f"stage:{number} ({path})" for number, path in enumerate(ends))


def logits_and_features(model: PixelModel, layers: Sequence[Layer], pixels: Tensor) -> tuple[Tensor, ...]:
    """Compute the logits [B, K] of pixels [B, C, H, W], and the features of each layer.

    Feature maps are [B, C, H, W], whatever order the network keeps them in, as are tokens on a square grid; vectors are
    [B, D].
    """
    features: dict[int, Tensor] = {}

    def keep(place: int, value: Any) -> None:
        features[place] = value

    with ExitStack() as hooks:
        for place, layer in enumerate(layers):
            module = model.net.get_submodule(layer.path)
            if layer.before:
                handle = module.register_forward_pre_hook(lambda _, inputs, at=place: keep(at, inputs[0]))
            else:
                handle = module.register_forward_hook(lambda _, __, output, at=place: keep(at, output))
            hooks.callback(handle.remove)
        logits = model(pixels)
    return logits, *(_as_map(features[place], model.net) for place in range(len(layers)))


@torch.no_grad()
def teacher_outputs(
    teacher: PixelModel, layers: Sequence[Layer], pixels: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """Compute a teacher's :func:`logits_and_features` without gradient, as float32; it must be in eval mode."""
    with autocast(device, training=False):
        return tuple(output.float() for output in logits_and_features(teacher, layers, pixels))


@torch.no_grad()
def feature_shapes(model: PixelModel, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Compute the shapes of the layers' features, without the batch: (C, H, W) or (D,)."""
    spec = model.spec
    was_training = model.training
    pixels = torch.zeros(2, spec.in_chans, spec.image_size, spec.image_size, device=model.mean.device)
    features = logits_and_features(model.eval(), layers, pixels)[1:]
    model.train(was_training)
    return [tuple(feature.shape[1:]) for feature in features]


def _as_map(value: Tensor, net: nn.Module) -> Tensor:
    if value.ndim == 4 and getattr(net, "output_fmt", "NCHW") == "NHWC":
        return value.permute(0, 3, 1, 2)
    if value.ndim == 3:
        tokens = value[:, getattr(net, "num_prefix_tokens", 0) :]
        side = math.isqrt(tokens.shape[1])
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).unflatten(2, (side, side))
        return tokens.mean(1)
    return value
