"""Self-training: the teacher labels images that have none, and a student of the same network learns from them.

Noisy student (Xie et al. 2020): the pseudo-labels are those of images as they are, and the student sees strong views.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from reflux.components.core.data.shards import Shard, join, some
from reflux.components.core.inference import predict
from reflux.components.core.runtime.world import World
from reflux.components.core.training.state import standard_error
from reflux.components.modalities.image.models.pixel_model import PixelModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PseudoLabels:
    """The images that a teacher labels for its student.

    Attributes:
        rows: of the chosen images among the unlabeled ones [n], in their order.
        labels: the class of each [n].
        confidence: that a label had to reach; infinite where none was worth anything.
    """

    rows: Ints
    labels: Ints
    confidence: float


@dataclass(frozen=True)
class Round:
    """What a round of training reached.

    Attributes:
        val_accuracy: of its teacher.
        pseudo_labels: the images that the teacher before it labeled for it.
        confidence: of these labels at least; None in the first round, which has none.
    """

    val_accuracy: float
    pseudo_labels: int = 0
    confidence: float | None = None

    @classmethod
    def of(cls, pseudo: PseudoLabels | None, val_accuracy: float) -> "Round":
        """A round that was taught by pseudo-labels, or by none."""
        return cls(val_accuracy, len(pseudo.rows), pseudo.confidence) if pseudo else cls(val_accuracy)


def labeled_by(
    teacher: PixelModel, unlabeled: Shard, val: Shard, shares: Floats, device: torch.device, world: World
) -> PseudoLabels:
    """Label the images of which a teacher is confident, as many of each class as it should have.

    Args:
        teacher: it sees the images as they are.
        unlabeled: the images to label.
        val: the validation split, which chooses the confidence.
        shares: of the classes among the labels [K].
        world: the processes, which divide the images.
    """
    predicted, sure = _predictions(teacher, val, device, world)
    confidence = confidence_for(sure, predicted == val.labels)
    predicted, sure = _predictions(teacher, unlabeled, device, world)
    rows = choose(predicted, sure, confidence, shares)
    return PseudoLabels(rows, predicted[rows], confidence)


def _predictions(model: PixelModel, images: Shard, device: torch.device, world: World) -> tuple[Ints, Floats]:
    """The likeliest class of each image [N], and the model's confidence in it [N]."""
    rows = world.shard(len(images))
    logits = predict(model, images.images, device, rows) if rows else torch.empty(0, len(model.spec.classes))
    sure, predicted = logits.cpu().double().softmax(1).max(1)
    every = world.all_gather(torch.stack([predicted.double(), sure], dim=1), len(images)).numpy()
    return every[:, 0].astype(np.int64), every[:, 1]


def confidence_for(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """The confidence from which on a teacher's labels are worth the most, by validation images.

    ``n`` labels of which a share η is wrong are worth ``n (1 - 2η)²`` right ones (Angluin and Laird 1988), which is how
    tri-training weighs labels (Zhou and Li 2005). With half of them wrong they are worth nothing.

    Args:
        confidence: of the teacher in its label of each validation image [N].
        right: whether that is the image's label [N].

    Returns:
        The confidence; infinite if no label is worth anything.
    """
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    worth = count * (1 - 2 * np.cumsum(~right[order]) / count).clip(min=0) ** 2
    ends = np.append(np.diff(confidence[order]) < 0, True)  # images of equal confidence are taken together
    worth = np.where(ends, worth, 0)
    return float(confidence[order[worth.argmax()]]) if worth.any() else np.inf


def choose(predicted: Ints, confidence: Floats, least: float, shares: Floats) -> Ints:
    """The images whose labels are used: the most confident of each class, up to its share of all that are confident.

    Args:
        predicted: the class of each image [N].
        confidence: in it [N].
        least: the confidence that an image must reach.
        shares: of the classes [K].

    Returns:
        The rows of the images, in their order; classes of which too few are confident have fewer than their share.
    """
    sure = confidence >= least
    most = np.ceil(shares * sure.sum()).astype(np.int64)
    order = np.argsort(-confidence, kind="stable")
    chosen = [order[sure[order] & (predicted[order] == label)][:limit] for label, limit in enumerate(most)]
    return np.sort(np.concatenate(chosen))


def with_pseudo_labels(train: Shard, unlabeled: Shard, taught: PseudoLabels) -> Shard:
    """The labeled images and those that the teacher labeled, as one split, without reading their images."""
    return join(train, replace(some(unlabeled, taught.rows), labels=taught.labels))


def kept_round(rounds: Sequence[Round], images: int) -> int:
    """The number, from 1, of the latest round whose accuracy is within one standard error of the best.

    Args:
        rounds: those that have ended.
        images: in the validation split.
    """
    best = max(each.val_accuracy for each in rounds)
    least = best - standard_error(best, images)
    return max(number for number, each in enumerate(rounds, 1) if each.val_accuracy >= least)


def sentence(rounds: Sequence[Round], unlabeled: int) -> str:
    """What the last round learned from and what it gained, in words."""
    last = rounds[-1]
    accuracy = f"validation accuracy {100 * last.val_accuracy:.2f} %"
    if last.confidence is None:
        return f"round 1, on the labels: {accuracy}"
    gain = 100 * (last.val_accuracy - rounds[-2].val_accuracy)
    return (
        f"round {len(rounds)}, also on {last.pseudo_labels:,} of {unlabeled:,} unlabeled images, labeled by the last "
        f"one with a confidence of at least {last.confidence:.4g}: {accuracy} ({gain:+.2f} points)"
    )
