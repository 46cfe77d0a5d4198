"""The precision that networks are computed in; losses are computed in single precision in any case."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_HALVES = (torch.float16, torch.bfloat16)


def autocast(device: torch.device, training: bool, precision: str = "auto") -> AbstractContextManager[None]:
    """The precision that a network is computed in.

    On CPUs bfloat16 pays for the teacher's inference: a student with a live teacher learns from 2,545 images/s with it,
    from 1,857 without. In training it depends on the network: 15,290 against 12,430 images/s for resnet8_slim, 782
    against 464 for resnet8x4 (``live``, ``live_fp32``, ``bare_bf16`` and ``bare`` of ``make bench``, on an EPYC with
    AVX-512 BF16).
    ``auto`` is bfloat16 where the hardware has it, but trains in fp32 on CPUs: its result is not to depend on the CPU's
    model.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(device, training, precision) == "bf16")


def resolved(device: torch.device, training: bool, precision: str = "auto") -> str:
    """The precision, bf16 or fp32, that ``precision`` is on this device."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capabilities = torch.cpu.get_capabilities()
    has_it = not training and (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if has_it else "fp32"


def computing(device: torch.device, precision: str | None = None, compile: bool = False) -> dict[str, Any]:
    """How a stage computes, as far as that moves the last digits of its result.

    Args:
        device: it computes on.
        precision: of its training, as in the params; None if it trains nothing.
        compile: whether what it trains is compiled.

    Returns:
        ``device``, the precision of ``inference``, and for training ``training``, its precision, and ``compile``.
    """
    facts: dict[str, Any] = {"device": device.type, "inference": resolved(device, training=False)}
    if precision is not None:
        facts |= {"training": resolved(device, training=True, precision=precision), "compile": compile}
    return facts


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
