"""The optimizer of a training and the course of its learning rate."""

import math
from typing import Any

from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def optimizer(groups: list[dict[str, Any]], name: str, lr: float, weight_decay: float) -> Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9; both fused into one kernel.

    Args:
        groups: parameter groups; an ``lr_scale`` in one multiplies its learning rate.
        name: adamw or sgd.
        lr: the peak learning rate.
        weight_decay: for groups that don't bring their own.
    """
    scaled = [{**group, "lr": lr * group.get("lr_scale", 1.0)} for group in groups]
    if name == "sgd":
        return SGD(scaled, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=True)
    return AdamW(scaled, lr=lr, weight_decay=weight_decay, fused=True)


def schedule(optimizer: Optimizer, name: str, steps: int, warmup: float) -> LRScheduler:
    """How the learning rates go over ``steps`` steps, from and to what the optimizer was built with.

    Args:
        optimizer: its groups' learning rates are the peaks.
        name: cosine (linear rise, then a cosine to zero; Loshchilov and Hutter 2017), one-cycle (rise and fall as
            cosines, the momentum the other way round; Smith and Topin 2018) or step (linear rise, then a tenth after
            5/8, 6/8 and 7/8 of the steps, as the CIFAR-100 tables of distillation have it; Tian et al. 2020).
        steps: the budget.
        warmup: the share of steps over which the learning rate rises.
    """
    if name == "one-cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=max(warmup, 1 / steps))
    rise = max(1, round(steps * warmup))

    def course(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if name == "step":
            return 0.1 ** sum(step >= steps * eighths / 8 for eighths in (5, 6, 7))
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return LambdaLR(optimizer, course)
