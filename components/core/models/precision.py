"""Losses are computed in single precision, also where the networks are not."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_HALVES = (torch.float16, torch.bfloat16)


def single_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Compute ``loss`` in float32 under autocast and for half precision arguments; float64 stays what it is.

    A matrix product under autocast has 8 bits of mantissa: the small differences that distillation is about are lost.
    """

    @wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()})

    return computed


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALVES else value
