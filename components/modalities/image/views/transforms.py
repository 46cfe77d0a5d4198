"""Transforms that a project adds to the views: each is a param of every ``augment``, which 0 switches off."""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt
from torch import Tensor

Apply = Callable[[Tensor, npt.NDArray[np.float64], float], Tensor]


@dataclass(frozen=True)
class Transform:
    """A transform and its draws; see :func:`transform`.

    Attributes:
        apply: the function.
        first: the number of its first draw, which its name decides, so that others do not move it.
        columns: its draws among those of all transforms.
    """

    apply: Apply
    first: int
    columns: slice


TRANSFORMS: dict[str, Transform] = {}


def transform(name: str, draws: int = 1) -> Callable[[Apply], Apply]:
    """Register a transform, which is applied last to a view.

    The function is called as ``apply(pixels, uniform, strength)`` with pixels uint8 [N, C, H, W], uniform random draws
    float64 [N, draws], and the param; it returns pixels of the same type and shape. Each view must depend on its own
    pixels and draws alone, and have the same bits in every batch: a soft label belongs to the exact view.

    Args:
        name: of the param, from 0 to 1, in ``student.augment`` and all others.
        draws: for each view.

    Raises:
        ValueError: the name is taken.
    """

    # Here, as views are drawn without pydantic, too: benchmarks.gpu.
    from reflux.components.core.params.augment import Augment, StudentAugment
    from reflux.components.core.params.section import Fraction, add_param

    def register(apply: Apply) -> Apply:
        if name in StudentAugment.model_fields:
            raise ValueError(f"Two transforms are named {name}.")
        for section in (Augment, StudentAugment):
            add_param(section, name, Fraction, 0.0)
        begin = max((each.columns.stop for each in TRANSFORMS.values()), default=0)
        first = (crc32(name.encode()) | 1 << 31) << 31  # past all draws of Reflux's own
        TRANSFORMS[name] = Transform(apply, first, slice(begin, begin + draws))
        return apply

    return register
