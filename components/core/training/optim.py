"""Optimizers, their parameter groups and learning-rate schedules, by name."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

# Params know the names: ``optimizer`` in components/core/params/sections.py.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": AdamW,
    "sgd": partial(SGD, momentum=0.9, nesterov=True),
}


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups that spare biases, normalization and what the network itself exempts from weight decay."""
    from timm.optim import param_groups_weight_decay  # more than a second, which benchmarks of a step do without

    return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt_from_decay(model))


def exempt_from_decay(model: nn.Module) -> set[str]:
    """The names of parameters that timm's networks exempt from weight decay, such as position embeddings."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }


def optimizer(groups: list[dict[str, Any]], name: str, lr: float, weight_decay: float) -> Optimizer:
    """Build an optimizer by name, fused into one kernel.

    Args:
        groups: parameter groups; an ``lr_scale`` in one multiplies its learning rate.
        name: one of ``OPTIMIZERS``.
        lr: the peak learning rate.
        weight_decay: for groups that don't have their own.
    """
    scaled = [{**group, "lr": lr * group.get("lr_scale", 1.0)} for group in groups]
    return OPTIMIZERS[name](scaled, lr=lr, weight_decay=weight_decay, fused=True)


def schedule(optimizer: Optimizer, name: str, steps: int, warmup: float) -> LRScheduler:
    """Build the learning-rate schedule of ``steps`` steps; the learning rates of the optimizer's groups are the peaks.

    Args:
        name: cosine (linear rise, then a cosine to zero; Loshchilov and Hutter 2017), one-cycle (rise and fall as
            cosines, the momentum the other way round; Smith and Topin 2018) or step (linear rise, then a tenth after
            5/8, 6/8 and 7/8 of the steps, as in the CIFAR-100 tables of distillation; Tian et al. 2020).
        warmup: the share of steps over which the learning rate rises.
    """
    if name == "one-cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=max(warmup, 1 / steps))
    rise = max(1, round(steps * warmup))

    def scale(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if name == "step":
            return 0.1 ** sum(step >= steps * eighths / 8 for eighths in (5, 6, 7))
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return LambdaLR(optimizer, scale)
