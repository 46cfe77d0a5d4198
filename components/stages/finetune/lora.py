"""LoRA: a low-rank change of frozen linear layers, merged into them after training (Hu et al. 2022), by PEFT."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from reflux.components.core.errors import UserError, listed
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.finetune.l2_sp import backbone

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

_LISTED = 8


def adaptable(model: PixelModel) -> list[str]:
    """The linear layers below the head that a network calls, by their names in it.

    A layer whose weights the network reads by itself, as BEiT does with ``qkv``, would be computed without its change.
    """
    below = {name.rpartition(".")[0] for name in backbone(model.net)}
    linear = {module: name for name, module in model.net.named_modules() if isinstance(module, nn.Linear)}
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda own, *_: called.append(linear[own]))
        for module, name in linear.items()
        if name in below
    ]
    spec, device = model.spec, next(model.parameters()).device
    mode = model.training
    with torch.inference_mode():
        model.eval()(torch.zeros(1, spec.in_chans, spec.image_size, spec.image_size, device=device))
    model.train(mode)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(called))


def layers_to_adapt(model: PixelModel, targets: Sequence[str]) -> list[str]:
    """The names of the layers that LoRA changes.

    Args:
        model: the teacher.
        targets: the ends of their names, such as ``attn.qkv``; none stands for every linear layer below the head.

    Raises:
        UserError: PEFT is not installed, the network has no linear layer below its head, or a target is none.
    """
    if find_spec("peft") is None:
        raise UserError(
            "finetune.strategy = lora needs the package peft: `pip install peft`, or take another strategy."
        )
    layers = adaptable(model)
    if not layers:
        raise UserError(
            f"finetune.strategy = lora changes linear layers, and {model.spec.name} has none below its head: take a "
            "transformer, such as vit_small_patch14_dinov2, or another strategy."
        )
    chosen = [name for name in layers if not targets or any(_ends(name, target) for target in targets)]
    for target in targets:
        if not any(_ends(name, target) for name in layers):
            ends = sorted({".".join(part for part in name.split(".")[-2:] if not part.isdigit()) for name in layers})
            raise UserError(
                f"finetune.lora_targets names {target}, and no linear layer that {model.spec.name} calls ends in it: "
                f"they end in {listed(ends, _LISTED)}."
            )
    return chosen


def _ends(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def inject(model: PixelModel, layers: Sequence[str], rank: int) -> "LoraModel":
    """Freeze a network but for its head, and add a low-rank change to some of its linear layers, which is trained.

    The change is ``B A``, of A random and B zero at first, so that the network computes what it did. Its factor is 1:
    the authors set it once and tune the learning rate (α = r).

    Returns:
        What :func:`merge` takes.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    below = backbone(model.net)
    head = [parameter for name, parameter in model.net.named_parameters() if name not in below]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers))
    adapted = LoraModel(model.net, config, "default")
    for parameter in head:
        parameter.requires_grad_(True)
    return adapted


def merge(adapted: "LoraModel") -> None:
    """Add the changes to the weights, in place: the network has its own layers again, and none that is frozen."""
    net = adapted.merge_and_unload()
    net.requires_grad_(True)
