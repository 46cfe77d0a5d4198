"""The terms of the distillation loss: what ``distill.method`` asks for, made ready for a pair of networks."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.core.errors import UserError
from components.core.models.pixel_model import PixelModel
from components.core.models.small_nets import conv_bn
from components.core.params import distill
from components.core.params.distill import Loss
from components.core.teacher.hooks import Layer, feature_shapes, find_layer
from components.distill import losses

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LossInputs:
    """What a term compares, for the images of a batch.

    Attributes:
        student: logits [B, K].
        teacher: logits [B, K].
        student_layers: what the student's taps gave, through the term's adapter.
        teacher_layers: what the teacher's taps gave.
        labels: classes [B], or probabilities [B, K]; the teacher's choice where an image has none.
        indices: of the images [B].
    """

    student: Tensor
    teacher: Tensor
    student_layers: tuple[Tensor, ...]
    teacher_layers: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Term:
    """One term of the distillation loss.

    Attributes:
        name: of the loss.
        weight: of the term.
        loss: a value an image [B], or one of the whole batch [].
        student: where it taps the student.
        teacher: where it taps the teacher.
        adapter: takes what the student's taps give and returns as many tensors.
        memory: what else learns, and remembers, with the student. Both are in its checkpoints, and in no file that
            ships.
    """

    name: str
    weight: float
    loss: Callable[[LossInputs], Tensor]
    student: tuple[Layer, ...] = ()
    teacher: tuple[Layer, ...] = ()
    adapter: nn.Module | None = None
    memory: nn.Module | None = None


class Adapters(nn.Module):
    """Brings what each tap gives to the teacher's channels (FitNet's regressor), or dimensions.

    Args:
        student: feature_shapes that the student's taps give, (C, H, W) or (D,).
        teacher: feature_shapes that the teacher's give.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        super().__init__()
        pairs = list(zip(student, teacher, strict=True))
        self.each = nn.ModuleList(
            conv_bn(mine[0], theirs[0], 1) if len(mine) == 3 else nn.Linear(mine[0], theirs[0])
            for mine, theirs in pairs
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(adapter(one) for adapter, one in zip(self.each, features, strict=True))


class Review(nn.Module):
    """ReviewKD's fusion of the student's stages, at the sizes of the teacher's."""

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        super().__init__()
        self.fusion = losses.ReviewFusion([shape[0] for shape in student], [shape[0] for shape in teacher])
        self.sizes = [(shape[1], shape[2]) for shape in teacher]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.fusion(features, self.sizes))


def terms(
    wanted: Sequence[Loss], standardized: bool, student: PixelModel, teacher: PixelModel | None, images: int
) -> list[Term]:
    """What the losses asked for come to for these networks.

    Args:
        wanted: the losses by name.
        standardized: whether they compare z-scores of the logits (Sun et al. 2024).
        student: the network that learns.
        teacher: the network that is asked; None where its soft labels are stored.
        images: how many there are to learn from.

    Raises:
        UserError: a layer does not exist, shapes can't be compared, a loss does not suit two classes, or a memory bank
            does not fit into memory.
    """
    classes = len(student.spec.classes)
    if classes == 2 and standardized:
        raise UserError(
            "logit-standardization leaves nothing of two logits but which is the larger: take it out of distill.method."
        )
    of_logits = losses.standardize if standardized else _as_they_are
    found = []
    for loss in wanted:
        if isinstance(loss, distill.Dkd) and classes == 2:
            raise UserError(
                "dkd weighs the target class apart from how the others compare, and of two classes there is but one "
                "other: set distill.method to kd."
            )
        if not loss.of_layers:
            found.append(Term(loss.name, loss.weight, partial(_of_logits(loss), of_logits=of_logits)))
        elif teacher is not None:
            found.append(_of_layers(loss, student, teacher, images))
    return found


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


def _of_logits(loss: Loss) -> Callable[..., Tensor]:
    match loss:
        case distill.Kd():
            return lambda seen, of_logits: losses.kd(of_logits(seen.student), of_logits(seen.teacher), loss.temperature)
        case distill.Dkd():
            return lambda seen, of_logits: losses.dkd(
                of_logits(seen.student), of_logits(seen.teacher), seen.labels, loss.temperature, loss.alpha, loss.beta
            )
        case distill.Dist():
            return lambda seen, of_logits: losses.dist(
                of_logits(seen.student), of_logits(seen.teacher), loss.temperature, loss.beta, loss.gamma
            )
        case distill.MseLogits():
            return lambda seen, of_logits: losses.mse_logits(of_logits(seen.student), of_logits(seen.teacher))
    raise AssertionError(f"{loss.name} has no loss")


def _of_layers(loss: Loss, student: PixelModel, teacher: PixelModel, images: int) -> Term:
    mine, theirs = _addresses(loss, "student"), _addresses(loss, "teacher")
    if len(mine) != len(theirs):
        raise UserError(
            f"distill.method {loss.name} names {len(mine)} layers of the student and {len(theirs)} of the teacher: "
            "name as many of each."
        )
    own, other = (tuple(find_layer(net, a) for a in places) for net, places in ((student, mine), (teacher, theirs)))
    shapes_own, shapes_other = feature_shapes(student, own), feature_shapes(teacher, other)
    term = partial(Term, loss.name, loss.weight, student=own, teacher=other)
    match loss:
        case distill.Fitnet():
            _same_kind(loss, shapes_own, shapes_other)
            return term(_fitnet, adapter=Adapters(shapes_own, shapes_other))
        case distill.AttentionTransfer():
            _maps(loss, mine, shapes_own, theirs, shapes_other)
            return term(_attention_transfer)
        case distill.SimilarityPreserving():
            return term(lambda seen: losses.similarity_preserving(seen.student_layers[0], seen.teacher_layers[0]))
        case distill.ReviewKd():
            _maps(loss, mine, shapes_own, theirs, shapes_other)
            return term(_hcl, adapter=Review(shapes_own, shapes_other))
        case distill.Rkd():
            return term(partial(_rkd, distance=loss.distance, angle=loss.angle))
        case distill.Crd():
            contrast = _contrast(loss, math.prod(shapes_own[0]), math.prod(shapes_other[0]), images)
            return term(
                lambda seen: contrast(seen.student_layers[0], seen.teacher_layers[0], seen.indices), memory=contrast
            )
    raise AssertionError(f"{loss.name} has no loss")


def _addresses(loss: Loss, side: str) -> list[str]:
    value = getattr(loss, side)
    return [value] if isinstance(value, str) else list(value)


def _same_kind(loss: Loss, own: Sequence[Shape], other: Sequence[Shape]) -> None:
    for mine, theirs in zip(own, other, strict=True):
        if len(mine) != len(theirs):
            raise UserError(
                f"distill.method {loss.name} can't compare a layer that gives {mine} with one that gives {theirs}: "
                "name two maps, or two vectors (pooled)."
            )


def _maps(loss: Loss, mine: list[str], own: Sequence[Shape], theirs: list[str], other: Sequence[Shape]) -> None:
    for address, shape in (*zip(mine, own, strict=True), *zip(theirs, other, strict=True)):
        if len(shape) != 3:
            raise UserError(f"distill.method {loss.name} compares maps, and {address} gives {shape}: name a stage.")


def _at_one_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of two sizes, the larger pooled to the smaller; vectors as they are."""
    if one.ndim < 4 or one.shape[2:] == other.shape[2:]:
        return one, other
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


def _fitnet(seen: LossInputs) -> Tensor:
    return losses.fitnet(*_at_one_size(seen.student_layers[0], seen.teacher_layers[0]))


def _attention_transfer(seen: LossInputs) -> Tensor:
    pairs = zip(seen.student_layers, seen.teacher_layers, strict=True)
    return torch.stack([losses.attention_transfer(mine, theirs) for mine, theirs in pairs]).sum(0)


def _hcl(seen: LossInputs) -> Tensor:
    pairs = zip(seen.student_layers, seen.teacher_layers, strict=True)
    return torch.stack([losses.hcl(mine, theirs) for mine, theirs in pairs]).sum(0)


def _rkd(seen: LossInputs, distance: float, angle: float) -> Tensor:
    mine, theirs = seen.student_layers[0], seen.teacher_layers[0]
    total = mine.new_zeros(())
    if distance:
        total = total + distance * losses.rkd_distance(mine, theirs)
    if angle:
        total = total + angle * losses.rkd_angle(mine, theirs)
    return total


def _contrast(loss: distill.Crd, own: int, other: int, images: int) -> losses.Contrast:
    banks = losses.bank_bytes(images, loss.dimensions)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 3 * banks > memory:  # in training, in the weights that are kept, and in the checkpoint that is being written
        raise UserError(
            f"distill.method crd keeps memory banks of {images:,} images, which take {3 * banks / 2**30:,.1f} GiB with "
            f"their copies, where this machine has {memory / 2**30:,.1f}: lower its dimensions ({loss.dimensions}), or "
            "take rkd."
        )
    return losses.Contrast(own, other, images, loss.dimensions, loss.negatives, loss.temperature, loss.momentum)
