"""The teacher: one network, or an ensemble that gives one set of logits."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.precision import single_precision
from reflux.components.modalities.image.models.pixel_model import PixelModel, check_classes, load


@single_precision
def average(logits: Tensor) -> Tensor:
    """The mean [B, K] of M teachers' logits [M, B, K], for any temperature.

    Its softmax is the geometric mean of the teachers' (Hinton et al. 2015, section 1).
    """
    return logits.mean(0)


@single_precision
def confidence_weighted(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The teachers' soft labels, weighted by how right each is on an image (Zhang et al. 2022, equations 2 to 4).

    A teacher's weight is ``(1 - exp(L) / Σ exp(L)) / (M - 1)``, with L its cross-entropy with the label. Without a
    label, L is its entropy, the error it expects of itself: the most confident teacher counts most (Kwon et al. 2020).

    Args:
        logits: of M teachers [M, B, K].
        labels: classes [B], negative where an image has none, or probabilities [B, K].
        temperature: T > 0 at which the soft labels are mixed.

    Returns:
        [B, K]: logits whose softmax at T is the weighted mean of the teachers' softmaxes at T, so that ``kd`` of them
        is the paper's loss less a constant.
    """
    if len(logits) == 1:
        return logits[0]
    weights = (1 - F.softmax(_expected_error(logits, labels), 0)) / (len(logits) - 1)
    return torch.logsumexp(F.log_softmax(logits / temperature, 2) + weights.log()[..., None], 0) * temperature


def _expected_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute each teacher's cross-entropy with the label, or its entropy where there is none: [M, B]."""
    log_probabilities = F.log_softmax(logits, 2)
    if labels.ndim == 2:
        return -(log_probabilities * labels).sum(2)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(2)
    of_label = log_probabilities.gather(2, labels.clamp(min=0).expand(len(logits), -1)[..., None])[..., 0]
    return torch.where(labels >= 0, -of_label, entropy)


class Ensemble(PixelModel):
    """Several teachers as one model.

    Args:
        teachers: for the same classes, in the same order.
        weighting: average; or confidence, which weights the more confident ones higher, image by image.
    """

    def __init__(self, teachers: Sequence[PixelModel], weighting: str) -> None:
        super().__init__(nn.ModuleList(teachers), teachers[0].spec)
        self.teachers, self.weighting = teachers, weighting

    def forward(self, pixels: Tensor) -> Tensor:
        logits = torch.stack([teacher(pixels) for teacher in self.teachers])
        if self.weighting == "average":
            return average(logits)
        return confidence_weighted(logits, torch.full((len(pixels),), -1, device=logits.device), temperature=1.0)


def load_teacher(
    first: Path, others: Sequence[str], weighting: str, classes: Sequence[str], device: torch.device
) -> tuple[PixelModel, str]:
    """Load the teacher, or several as one :class:`Ensemble`, in eval mode, and the hash that identifies it.

    Raises:
        UserError: a file is missing, damaged, or for other classes.
    """
    paths = [first, *map(Path, others)]
    teachers = [load(path).to(device) for path in paths]
    for teacher, path in zip(teachers, paths, strict=True):
        check_classes(teacher, classes, path)
    hashes = [sha256_file(path) for path in paths]
    if not others:
        return teachers[0], hashes[0]
    return Ensemble(teachers, weighting).eval(), hashlib.sha256(" ".join([weighting, *hashes]).encode()).hexdigest()
