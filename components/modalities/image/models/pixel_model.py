"""Networks by name, wrapped so that they take raw pixels, and the files they are kept in."""

import difflib
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.artifacts import atomic
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models import image_text
from reflux.components.modalities.image.models.first_stages import cut, whole_and_stages
from reflux.components.modalities.image.models.small_nets import SMALL_NETS, small_net
from reflux.components.modalities.image.models.widths import set_widths

_METADATA_KEY = "reflux"


@dataclass(frozen=True)
class ModelSpec:
    """The facts with which a model is built again and fed; mean and std are of its input, on a 0..1 scale."""

    name: str  # timm's, or a small_net's
    classes: tuple[str, ...]  # in logit order
    image_size: int
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pruned: float = 0.0  # share of each layer's channels that was removed; the tensors' shapes say what is left

    @property
    def label(self) -> str:
        """The network, for people."""
        return f"{self.name}, {self.pruned:.0%} pruned" if self.pruned else self.name


class PixelModel(nn.Module):
    """A network that owns its own resizing and normalization, so that it can't be fed another model's input.

    Takes pixels [N, C, H, W], uint8 or float on a 0..255 scale, and returns float32 logits [N, classes]. Gray pixels
    are repeated for a network of three channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1) * 255, persistent=False)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pixels [N, C, H, W] as the network wants them: [N, in_chans, image_size, image_size]."""
        size = self.spec.image_size
        x = pixels.float()
        if tuple(x.shape[-2:]) != (size, size):
            shrinks = x.shape[-1] > size
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
        x = (x - self.mean) / self.std  # broadcasting repeats a gray channel
        return x.contiguous(memory_format=torch.channels_last)

    def features(self, pixels: Tensor) -> Tensor:
        """The pooled features before the head: [N, D]."""
        x = self.normalized(pixels)
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True).float()  # type: ignore[operator]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(self.normalized(pixels)).float()


def network(name: str, num_classes: int, in_chans: int) -> nn.Module:
    """Build an untrained network by its name: timm's, a small net's or that of an image-text model of open_clip.

    Of timm's it may be the first stages alone; see :mod:`reflux.components.modalities.image.models.first_stages`.

    Raises:
        UserError: the name is unknown; the nearest known names are suggested.
    """
    if build := small_net(name):
        return build(in_chans=in_chans, num_classes=num_classes)
    if name.startswith(image_text.PREFIX):
        return image_text.image_tower(name, num_classes)
    import timm  # more than a second, which a small student does without

    check_timm_name(name)
    whole, _ = whole_and_stages(name)
    return cut(
        timm.create_model(whole, pretrained=False, num_classes=num_classes, in_chans=in_chans), name, num_classes
    )


def check_timm_name(name: str) -> None:
    """Look for a name among timm's, with the tag of its weights or without, and with a number of stages or without.

    Raises:
        UserError: it is unknown; the nearest known names are suggested.
    """
    import timm

    whole, _ = whole_and_stages(name)
    known = timm.is_model(whole)
    with suppress(RuntimeError):  # of an unknown tag
        if known:
            timm.models.get_pretrained_cfg(whole)
            return
    model = whole.partition(".")[0]
    names = timm.list_models(f"{model}.*", pretrained=True) if known else [*SMALL_NETS, *timm.list_models()]
    near = difflib.get_close_matches(whole, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists the names."
    raise UserError(f"No model is named {name}; {hint}")


def pixel_model(
    name: str, classes: Sequence[str], image_size: int, in_chans: int, mean: Sequence[float], std: Sequence[float]
) -> PixelModel:
    """Build an untrained model that takes raw pixels.

    Raises:
        UserError: the name is unknown, or the network can't take images of this size.
    """
    spec = ModelSpec(name, tuple(classes), image_size, in_chans, tuple(mean), tuple(std))
    model = PixelModel(network(name, len(classes), in_chans), spec)
    _try_out(model, in_chans)
    return model.to(memory_format=torch.channels_last)


def adapted(pretrained: PixelModel, classes: Sequence[str], image_size: int, channels: int) -> PixelModel:
    """Give a pretrained network a new head for other classes, at another image size.

    The network keeps the mean and standard deviation that it was pretrained with. One that was pruned keeps its head,
    too, where it is for these very classes: training is to restore what it knew.

    Raises:
        UserError: the network can't take images of this size, or of so many channels.
    """
    spec = replace(pretrained.spec, classes=tuple(classes), image_size=image_size)
    check_channels(spec, channels)
    if not spec.pruned or pretrained.spec.classes != spec.classes:
        pretrained.net.reset_classifier(len(classes))  # type: ignore[operator]
    model = PixelModel(pretrained.net, spec)
    _try_out(model, channels)
    return model.to(memory_format=torch.channels_last)


def check_channels(spec: ModelSpec, channels: int) -> None:
    """Refuse color images for a network that was pretrained on gray ones.

    Raises:
        UserError: it was, and these are.
    """
    if channels > spec.in_chans:
        raise UserError(
            f"{spec.name} was pretrained on gray images, and these have {channels} channels: set ingest.channels to 1, "
            "or take other weights."
        )


def _try_out(model: PixelModel, channels: int) -> None:
    size = model.spec.image_size
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(2, channels, size, size))
    except (RuntimeError, AssertionError) as error:  # timm asserts that patches fit
        first = str(error).splitlines()[0]
        raise UserError(f"{model.spec.name} can't take images of {size} pixels ({first}): raise image_size.") from None


def parameter_count(model: nn.Module) -> int:
    """The number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def save(model: PixelModel, path: Path) -> None:
    """Write weights and spec as one safetensors file, atomically."""
    state: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in model.net.state_dict().items():
        own = tensor.detach().cpu().contiguous()
        # The format refuses tensors that share memory, as CoaT's parallel blocks do: each name gets its own.
        state[name] = own.clone() if own.untyped_storage().data_ptr() in written else own
        written.add(own.untyped_storage().data_ptr())
    # Without what older releases don't know, unless it is needed.
    spec = {name: value for name, value in asdict(model.spec).items() if name != "pruned" or value}
    with atomic(path) as temporary:
        # Through memory: its own writer tells of a full disk in an error of its own.
        temporary.write_bytes(safetensors.save(state, metadata={_METADATA_KEY: json.dumps(spec)}))


def load(path: Path) -> PixelModel:
    """Read a model that :func:`save` wrote, in eval mode.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    spec, state = read(path)
    if spec is None:
        raise UserError(f"{path} holds weights but not which model they belong to: it was not written by Reflux.")
    model = PixelModel(network(spec.name, len(spec.classes), spec.in_chans), spec)
    if spec.pruned:
        set_widths(model.net, state)
    try:
        model.net.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path} does not fit today's {spec.name}: run `reflux run` to make it again.") from None
    return model.to(memory_format=torch.channels_last).eval()


def read(path: Path) -> tuple[ModelSpec | None, dict[str, Tensor]]:
    """The spec (None for a foreign file) and tensors of a safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it (`reflux run`).") from None
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): delete it and make it again.") from None
    if _METADATA_KEY not in metadata:
        return None, state
    fields = json.loads(metadata[_METADATA_KEY])
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return ModelSpec(**tuples), state


def check_classes(model: PixelModel, classes: Sequence[str], path: Path) -> None:
    """Refuse a model whose head is for other classes than the dataset's.

    Raises:
        UserError: the number or the names of the classes differ.
    """
    have = model.spec.classes
    if len(have) != len(classes):
        raise UserError(
            f"{path} has a head for {len(have)} classes but the dataset has {len(classes)}: "
            "fine-tune the teacher on this dataset (`reflux run`)."
        )
    if have != tuple(classes):
        odd = next((a, b) for a, b in zip(have, classes, strict=True) if a != b)
        raise UserError(f"{path} was trained for class {odd[0]!r} where the dataset has {odd[1]!r}: fine-tune it anew.")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, from whose global generators new layers and dropout draw."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)
