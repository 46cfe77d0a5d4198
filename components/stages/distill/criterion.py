"""The loss that a student minimizes: the methods of ``distill.method`` and the hard labels, as named parts."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.layers import Layer, feature_shapes, find_layer, rectified, teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.distill.losses.labels import hard_loss, labels_or_prediction
from reflux.components.stages.distill.losses.logits import kd, standardize, temperature_for
from reflux.components.stages.distill.losses.register import LOSSES, Features
from reflux.components.stages.distill.modules import DistillModule, Shape

if TYPE_CHECKING:  # pydantic is not needed to train
    from reflux.components.core.params.distill import LogitStandardization, Loss


@dataclass(frozen=True)
class Term:
    """One method's part of the loss.

    Attributes:
        loss: of the student's and the teacher's logits [B, K], or features of a pair of layers [B, …]; [B] or [].
        labels: whether the loss takes ``labels`` too.
        student: layers that are compared with ``teacher``'s, through the ``adapter``.
        memory: the loss, where it is a module that remembers images and takes ``indices`` too.
        warmup: the share of the steps over which the weight rises from 0.
    """

    name: str
    weight: float
    loss: Callable[..., Tensor]
    labels: bool = False
    student: tuple[Layer, ...] = ()
    teacher: tuple[Layer, ...] = ()
    adapter: nn.Module | None = None
    memory: nn.Module | None = None
    warmup: float = 0.0


class Criterion:
    """``label_weight · CE + teacher_weight · Σ weight · loss``, where CE is over the images that have a label.

    With ``log_priors`` [K] the CE is that of logit adjustment; the teacher's losses compare the logits as they are.
    """

    def __init__(
        self, terms: Sequence[Term], label_weight: float, teacher_weight: float, log_priors: Tensor | None = None
    ) -> None:
        self._terms, self._label_weight, self._teacher_weight = terms, label_weight, teacher_weight
        self._log_priors = log_priors
        self.teacher_layers = tuple(layer for term in terms for layer in term.teacher)

    @property
    def warmups(self) -> dict[str, float]:
        """The share of the steps over which a part's weight rises, by name; parts without one are left out."""
        return {term.name: term.warmup for term in self._terms if term.warmup}

    @property
    def has_banks_to_fill(self) -> bool:
        """Whether a loss of layers keeps a memory bank, which :meth:`fill_memories` fills before the first step."""
        return any(term.memory for term in self._terms if term.teacher)

    def fill_memories(self, student: PixelModel, images: Iterable[tuple[Tensor, Tensor, Sequence[Tensor]]]) -> None:
        """Fill the memory banks with what teacher and student make of the images before training.

        The student normalizes by the batch's statistics, as in the first steps: an untrained one has no others.

        Args:
            student: before its training; its adapters and memories are on its device.
            images: pixels [B, C, H, W], indices [B] and the features of ``teacher_layers`` of every image, in shuffled
                batches.
        """
        firsts = list(accumulate((len(term.teacher) for term in self._terms), initial=0))
        was_training, buffers = student.training, {name: value.clone() for name, value in student.named_buffers()}
        student.train()
        for pixels, indices, teacher_features in images:
            for first, term in zip(firsts, self._terms, strict=False):
                if term.memory and term.teacher:
                    _, own = teacher_outputs(student, term.student, pixels, pixels.device)
                    term.memory.fill(own, teacher_features[first], indices)  # type: ignore[operator]
        student.load_state_dict(buffers, strict=False)
        student.train(was_training)

    def module(self, student: PixelModel) -> PixelModel | DistillModule:
        """Put the student together with what trains along with it, if anything does."""
        memories = [term.memory for term in self._terms if term.memory]
        if not self.teacher_layers and not memories:
            return student
        layers, adapters = [term.student for term in self._terms], [term.adapter for term in self._terms]
        return DistillModule(student, layers, adapters, memories).to(student.mean.device)

    def __call__(self, output: Tensor | tuple[Tensor, ...], *targets: Tensor) -> dict[str, Tensor]:
        """Compute the parts of a batch's loss by name, already weighted.

        Args:
            output: the student's logits [B, K]; in a tuple with the features of its layers, if there are any.
            targets: the teacher's logits [B, K], the features of each of its layers, the labels (classes [B], or
                probabilities [B, K] of mixed views; any where an image has none), :func:`share_of_labels` [B], and the
                images' indices [B].

        Returns:
            Each [B]: a method's under its name, and ``ce``, which is absent where the labels have no weight.
        """
        logits, *features = output if isinstance(output, tuple) else (output,)
        teacher, *teacher_features = targets[: 1 + len(self.teacher_layers)]
        labels, known, indices = targets[1 + len(self.teacher_layers) :]
        own, other = iter(features), iter(teacher_features)
        parts: dict[str, Tensor] = {}
        for term in self._terms:
            count = len(term.teacher)
            pairs = list(zip(islice(own, count), islice(other, count), strict=True)) if count else [(logits, teacher)]
            wanted = {"labels": labels_or_prediction(labels, known, teacher)} if term.labels else {}
            wanted |= {"indices": indices} if term.memory else {}
            value = reduce(operator.add, (term.loss(*pair, **wanted) for pair in pairs))
            parts[term.name] = (self._teacher_weight * term.weight * value).expand(len(logits))
        if self._label_weight:
            parts["ce"] = hard_loss(logits, labels, known, self._label_weight, self._log_priors)
        return parts


def terms(
    losses: "Sequence[Loss]",
    student: PixelModel,
    teacher: PixelModel | None = None,
    images: int = 0,
    standardization: "LogitStandardization | None" = None,
) -> list[Term]:
    """Prepare the losses of ``distill.method`` for a pair of networks.

    Args:
        losses: with their params.
        student: the network that learns.
        teacher: the network whose layers are compared; losses of logits need none.
        images: how many there are to learn from.
        standardization: losses of logits compare z-scores, with its weight and temperature (Sun et al. 2024).

    Raises:
        UserError: a layer does not exist, features can't be compared, or a memory bank does not fit into memory.
    """
    return [
        _term_of_layers(loss, student, teacher, images)
        if loss.layer_pairs
        else _term(loss, student, images, standardization)
        for loss in losses
    ]


def _term(loss: "Loss", student: PixelModel, images: int, standardization: "LogitStandardization | None") -> Term:
    registered, settings, classes = LOSSES[loss.name], loss.settings, len(student.spec.classes)
    if standardization and "temperature" in settings:
        settings["temperature"] = standardization.temperature or temperature_for(classes)
    memory = registered.function(classes, images, **settings) if registered.memory else None
    term = partial(Term, loss.name, labels=registered.labels, memory=memory, warmup=loss.warmup)
    function = memory or partial(registered.function, **settings)
    if not standardization:
        return term(loss.weight, function)
    return term(loss.weight * standardization.weight, _of_z_scores(function))


def _term_of_layers(loss: "Loss", student: PixelModel, teacher: PixelModel | None, images: int) -> Term:
    registered = LOSSES[loss.name]
    if teacher is None:
        raise ValueError(f"{loss.name} compares layers and needs the teacher.")
    own, other = (
        tuple(find_layer(net, address) for address in addresses)
        for net, addresses in zip((student, teacher), zip(*loss.layer_pairs, strict=True), strict=True)
    )
    shapes = feature_shapes(student, own), feature_shapes(teacher, other)
    for addresses, pair in zip(loss.layer_pairs, zip(*shapes, strict=True), strict=True):
        _check_features(loss.name, registered.features, addresses, pair)
    term = partial(Term, loss.name, loss.weight, student=own, teacher=other, warmup=loss.warmup)
    if registered.memory:
        dimensions = math.prod(shapes[0][0]), math.prod(shapes[1][0])
        memory = registered.function(*dimensions, images, **loss.settings)
        return term(memory, registered.labels, memory=memory)
    adapter = registered.adapter(*shapes, rectified(teacher, other)) if registered.adapter else None
    return term(partial(registered.function, **loss.settings), registered.labels, adapter=adapter)


def _of_z_scores(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def standardized(student: Tensor, teacher: Tensor, **wanted: Tensor) -> Tensor:
        return function(standardize(student), standardize(teacher), **wanted)

    return standardized


def _check_features(method: str, features: Features, addresses: tuple[str, str], shapes: tuple[Shape, Shape]) -> None:
    for address, shape in zip(addresses, shapes, strict=True):
        if features == "maps" and len(shape) != 3:
            raise UserError(f"distill.method {method} compares maps, and {address} gives {shape}: name a stage.")
    if features == "alike" and len(shapes[0]) != len(shapes[1]):
        raise UserError(
            f"distill.method {method} can't compare a layer that gives {shapes[0]} with one that gives {shapes[1]}: "
            "name two maps, or two vectors (pooled)."
        )


def mutual_loss(
    logits: tuple[Tensor, ...],
    labels: Tensor,
    known: Tensor,
    _: Tensor,
    label_weight: float,
    teacher_weight: float,
    log_priors: Tensor | None = None,
) -> dict[str, Tensor]:
    """Sum the peers' losses: cross-entropy, and the mean divergence from the others (Zhang et al. 2018, eq. 8).

    To each of them the others are teachers, through which no gradient flows. The targets are those of
    :class:`Criterion` without the teacher's, as are ``log_priors``. Returns ``deep-mutual-learning`` and, where the
    labels have a weight, ``ce``, each [B].
    """
    divergences = [
        torch.stack([kd(own, other.detach(), 1.0) for other in logits if other is not own]).mean(0) for own in logits
    ]
    parts = {"deep-mutual-learning": teacher_weight * torch.stack(divergences).sum(0)}
    if label_weight:
        parts["ce"] = torch.stack([hard_loss(own, labels, known, label_weight, log_priors) for own in logits]).sum(0)
    return parts
