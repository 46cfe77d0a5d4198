"""The losses by name: each is registered next to its function, with what it wants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import nn

from reflux.components.core.registry import Registry
from reflux.components.stages.distill.modules import Shape

F = TypeVar("F", bound=Callable[..., Any])
Adapter = Callable[[Sequence[Shape], Sequence[Shape], Sequence[bool]], nn.Module]
Features = Literal["any", "alike", "maps"]


@dataclass(frozen=True)
class Registered:
    """A loss and what it wants; see :func:`loss`."""

    function: Callable[..., Any]
    labels: bool
    features: Features
    adapter: Adapter | None
    memory: bool
    shared: bool

    @property
    def one_process(self) -> bool:
        """Whether what it remembers, or learns, is known to one process only."""
        return self.memory and not self.shared


LOSSES: Registry[Registered] = Registry("losses")


def loss(
    name: str,
    *,
    labels: bool = False,
    features: Features = "any",
    adapter: Adapter | None = None,
    memory: bool = False,
    shared: bool = False,
) -> Callable[[F], F]:
    """Register a loss under the name of its params class, a ``Loss`` or ``LayerLoss``.

    The function is called as ``function(student, teacher, **params)``, for logits [B, K] or, where its params name
    layers, once for each pair of layers with their features; the values are summed. ``params`` are those of the params
    class by name, but for the weight and the layers. It returns a value an image [B], or one of the whole batch [].

    Args:
        name: as in ``distill.method``.
        labels: pass ``labels``: classes [B] or probabilities [B, K], the teacher's prediction where an image has none.
        features: which layers can be compared: any, two maps or two vectors (alike), or maps only.
        adapter: makes the module that brings the student's features to the teacher's shapes, from the shapes of both,
            (C, H, W) or (D,), and which of the teacher's features are never negative. It is trained and checkpointed
            with the student, and ships in no file.
        memory: the loss remembers the images. What is registered makes a module, as ``Module(classes, images,
            **params)`` for logits and ``Module(student_dim, teacher_dim, images, **params)`` for layers; it is called
            as ``module(student, teacher, indices)``, and trained and checkpointed like an adapter. Where it compares
            layers, its ``fill`` is called before the first step with the same arguments, for all images.
        shared: what the loss remembers is the same in all processes that train together; otherwise they are refused.

    Raises:
        ValueError: the name is taken.
    """
    return LOSSES.registers(name, lambda function: Registered(function, labels, features, adapter, memory, shared))
