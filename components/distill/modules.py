"""What trains when a student is distilled, and the loss that it minimises."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.core.models.pixel_model import PixelModel
from components.core.teacher.hooks import logits_and_features
from components.distill.criterion import LossInputs, Term
from components.distill.losses import hard_loss, kd


class DistillModule(nn.Module):
    """A student with all that learns beside it.

    In training it answers with the student's logits [B, K] and what each term's taps and adapter make of its layers; in
    eval mode with the logits alone, as the student does.
    """

    def __init__(self, student: PixelModel, terms: Sequence[Term]) -> None:
        super().__init__()
        self.student, self._terms = student, terms
        self.adapters = nn.ModuleList(term.adapter or nn.Identity() for term in terms)
        self.memories = nn.ModuleList(term.memory for term in terms if term.memory)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.student(pixels)
        taps = tuple(tap for term in self._terms for tap in term.student)
        logits, *layers = logits_and_features(self.student, taps, pixels)
        found = [logits]
        for term, adapter in zip(self._terms, self.adapters, strict=True):
            mine, layers = layers[: len(term.student)], layers[len(term.student) :]
            found += adapter(mine)
        return tuple(found)


class Peers(nn.Module):
    """Students that learn from each other; in eval mode the first of them answers alone."""

    def __init__(self, student: PixelModel, others: Sequence[PixelModel]) -> None:
        super().__init__()
        self.student, self.others = student, nn.ModuleList(others)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self.student(pixels)
        return tuple(net(pixels) for net in (self.student, *self.others))


class Criterion:
    """``label_weight · CE + teacher_weight · Σ weight · term``; the cross-entropy is over the images that have a label.

    Args:
        terms: of the distillation loss.
        label_weight: weight of the hard labels.
        teacher_weight: weight of the terms.
    """

    def __init__(self, terms: Sequence[Term], label_weight: float, teacher_weight: float) -> None:
        self._terms, self._label_weight, self._teacher_weight = terms, label_weight, teacher_weight
        self._layers = sum(len(term.teacher) for term in terms)

    def __call__(self, answer: Tensor | tuple[Tensor, ...], *targets: Tensor) -> dict[str, Tensor]:
        """The parts of a batch's loss by name, already weighted.

        Args:
            answer: the student's logits [B, K]; in a tuple with what the taps gave, if there are any.
            targets: the teacher's logits [B, K], what each of its taps gave, the labels (classes [B], or probabilities
                [B, K] of mixed views; any where an image has none), :func:`share_of_labels` [B], and the images'
                indices [B].

        Returns:
            Each [B]; ``ce`` is absent where the labels have no weight.
        """
        logits, *mine = answer if isinstance(answer, tuple) else (answer,)
        teacher, *theirs = targets[: 1 + self._layers]
        labels, known, indices = targets[1 + self._layers :]
        own, other = iter(mine), iter(theirs)
        parts: dict[str, Tensor] = {}
        for term in self._terms:
            layers = tuple(islice(own, len(term.student))), tuple(islice(other, len(term.teacher)))
            seen = LossInputs(logits, teacher, *layers, labels_or_choice(labels, known, teacher), indices)
            parts[term.name] = (self._teacher_weight * term.weight * term.loss(seen)).expand(len(logits))
        if self._label_weight:
            parts["ce"] = hard_loss(logits, labels, known, self._label_weight)
        return parts


def labels_or_choice(labels: Tensor, known: Tensor, teacher: Tensor) -> Tensor:
    """The labels, and where an image has none the class that the teacher [B, K] takes for the likeliest."""
    choice = teacher.argmax(1)
    if labels.ndim == 2:
        return torch.where(known[:, None] > 0, labels, F.one_hot(choice, labels.shape[1]).to(labels))
    return torch.where(known > 0, labels, choice)


def mutual_loss(
    logits: tuple[Tensor, ...], labels: Tensor, known: Tensor, _: Tensor, label_weight: float, teacher_weight: float
) -> dict[str, Tensor]:
    """The sums of the peers' losses: cross-entropy, and the mean divergence from the others (Zhang et al. 2018, eq. 8).

    To each of them the others are teachers, through which no gradient flows.

    Args:
        logits: the peers' logits, each [B, K].
        labels: classes [B], or probabilities [B, K]; any where an image has none.
        known: [B], from :func:`share_of_labels`.
        label_weight: weight of the hard labels.
        teacher_weight: weight of the other peers.

    Returns:
        ``ce`` and ``kd``, each [B].
    """
    ce = kl = logits[0].new_zeros(len(labels))
    for mine in logits:
        others = [kd(mine, theirs.detach(), 1.0) for theirs in logits if theirs is not mine]
        ce = ce + hard_loss(mine, labels, known, label_weight)
        kl = kl + teacher_weight * torch.stack(others).mean(0)
    return {"ce": ce, "kd": kl}
