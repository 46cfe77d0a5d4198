"""The layers of a network by address, and what they give.

An address is a module's path (``layer2.0.conv1``), ``stage:N`` (counted from 0, or from the end: ``stage:-1``; the
stages are those of timm's ``feature_info``) or ``pooled`` (what the classifier sees).
"""

import difflib
import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.core.errors import UserError
from components.core.models.pixel_model import PixelModel
from components.core.runtime.device import autocast


@dataclass(frozen=True)
class Tap:
    """A place in a network.

    Attributes:
        path: of a module in the network.
        before: whether it is what goes into the module, rather than what comes out of it.
    """

    path: str
    before: bool = False


def stages(net: nn.Module) -> list[str]:
    """The paths of the modules at which the network's stages end; none where the network does not tell."""
    return [stage["module"] for stage in getattr(net, "feature_info", [])]


def find(model: PixelModel, address: str) -> Tap:
    """The place that an address names.

    Raises:
        UserError: there is none; the message lists the stages.
    """
    net, name = model.net, model.spec.name
    if address == "pooled":
        head = net.get_classifier()  # type: ignore[operator]
        path = next((path for path, module in net.named_modules() if module is head), None)
        if path is None:
            raise UserError(f"{name} has no single classifier whose input could be tapped: name a module's path.")
        return Tap(path, before=True)
    ends = stages(net)
    number = re.fullmatch(r"stage:(-?\d+)", address)
    if number:
        if -len(ends) <= int(number[1]) < len(ends):
            return Tap(ends[int(number[1])])
        raise UserError(f"{name} has no {address}: {_listed(ends)}.")
    paths = [path for path, _ in net.named_modules() if path]
    if address in paths:
        return Tap(address)
    near = difflib.get_close_matches(address, paths, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"{name} has no layer {address}{hint}: {_listed(ends)}.")


def _listed(ends: list[str]) -> str:
    if not ends:
        return "it tells of no stages, so name a module's path"
    return "its stages are " + ", ".join(f"stage:{number} ({path})" for number, path in enumerate(ends))


def answers(model: PixelModel, taps: tuple[Tap, ...], pixels: Tensor) -> tuple[Tensor, ...]:
    """The logits [B, K] for pixels [B, C, H, W], and what each tap gives.

    Maps come as [B, C, H, W], whatever order the network keeps them in, and tokens on a square grid do too; vectors are
    [B, D].
    """
    seen: dict[int, Tensor] = {}

    def keep(place: int, value: Any) -> None:
        seen[place] = value

    with ExitStack() as hooks:
        for place, tap in enumerate(taps):
            module = model.net.get_submodule(tap.path)
            if tap.before:
                handle = module.register_forward_pre_hook(lambda _, given, at=place: keep(at, given[0]))
            else:
                handle = module.register_forward_hook(lambda _, __, made, at=place: keep(at, made))
            hooks.callback(handle.remove)
        logits = model(pixels)
    return logits, *(_as_map(seen[place], model.net) for place in range(len(taps)))


@torch.no_grad()
def asked(teacher: PixelModel, taps: tuple[Tap, ...], pixels: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """What a teacher in eval mode answers to pixels [B, C, H, W]: see :func:`answers`, all float32."""
    with autocast(device, training=False):
        return tuple(answer.float() for answer in answers(teacher, taps, pixels))


@torch.no_grad()
def shapes(model: PixelModel, taps: tuple[Tap, ...]) -> list[tuple[int, ...]]:
    """The shapes that taps give, without the batch: (C, H, W) or (D,)."""
    spec = model.spec
    was_training = model.training
    pixels = torch.zeros(2, spec.in_chans, spec.image_size, spec.image_size, device=model.mean.device)
    found = answers(model.eval(), taps, pixels)[1:]
    model.train(was_training)
    return [tuple(answer.shape[1:]) for answer in found]


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
