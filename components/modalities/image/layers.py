"""The layers of a network by address, and their features through forward hooks.

An address is a module's path (``layer2.0.conv1``), ``stage:N`` (counted from 0, or from the end: ``stage:-1``; the
stages are those of timm's ``feature_info``), ``preact:N`` (a stage before the ReLU that it ends with) or ``pooled``
(the classifier's input).
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

from reflux.components.core.errors import UserError
from reflux.components.core.precision import autocast
from reflux.components.modalities.image.models.pixel_model import PixelModel


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
    stage = re.fullmatch(r"(stage|preact):(-?\d+)", address)
    if stage:
        if -len(ends) <= int(stage[2]) < len(ends):
            layer = Layer(ends[int(stage[2])])
            return _before_relu(model, layer) if stage[1] == "preact" else layer
        raise UserError(f"{name} has no {address}: {_listed(ends)}.")
    paths = [path for path, _ in net.named_modules() if path]
    if address in paths:
        return Layer(address)
    near = difflib.get_close_matches(address, paths, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"{name} has no layer {address}{hint}: {_listed(ends)}.")


def _before_relu(model: PixelModel, layer: Layer) -> Layer:
    """The input of the ReLU that a stage ends with; the stage itself where it ends with none."""
    modules = model.net.get_submodule(layer.path).named_modules(prefix=layer.path)
    paths = [path for path, module in modules if isinstance(module, nn.ReLU)]
    if not paths:
        return layer
    relu = Layer(paths[-1], before=True)
    before, after = _features_of_noise(model, (relu, layer))
    return relu if torch.equal(before.relu(), after) else layer


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
                # Some of timm's activations overwrite their input.
                copied = getattr(module, "inplace", False)
                handle = module.register_forward_pre_hook(
                    lambda _, inputs, at=place, copied=copied: keep(at, inputs[0].clone() if copied else inputs[0])
                )
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


def feature_shapes(model: PixelModel, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Compute the shapes of the layers' features, without the batch: (C, H, W) or (D,)."""
    return [tuple(feature.shape[1:]) for feature in _features_of_noise(model, layers)]


def rectified(model: PixelModel, layers: Sequence[Layer]) -> list[bool]:
    """Tell which layers' features are never negative, as after a ReLU."""
    return [bool((feature >= 0).all()) for feature in _features_of_noise(model, layers)]


@torch.no_grad()
def _features_of_noise(model: PixelModel, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    spec = model.spec
    was_training = model.training
    shape = (2, spec.in_chans, spec.image_size, spec.image_size)
    noise = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    features = logits_and_features(model.eval(), layers, noise.to(model.mean.device, torch.uint8))[1:]
    model.train(was_training)
    return features


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
