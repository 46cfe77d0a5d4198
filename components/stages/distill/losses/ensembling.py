"""Temporal ensembling: soft labels that the student corrects (Laine and Aila 2017)."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.precision import single_precision
from reflux.components.stages.distill.losses.banks import refuse_large_banks
from reflux.components.stages.distill.losses.register import loss

_LEAST = 1e-9  # a probability whose logarithm is taken


@loss("temporal-ensembling", memory=True, shared=True)
class TemporalEnsembling(nn.Module):
    """Compares the student with the mean of its earlier answers to an image, which begins as the teacher's soft label.

    A mean over many views and moments of training is right more often than a single answer (Laine and Aila 2017,
    section 2.2), and what a teacher of few labels gets wrong in one image the student has often learned from others.
    Theirs begins at zero and takes the squared error; here it begins with the teacher, takes the divergence like
    :func:`reflux.components.stages.distill.losses.logits.kd`, and is sharpened (Berthelot et al. 2019, equation 7),
    without which it would be less and less sure.

    The means are a buffer, saved and restored with the module, and the same in all processes. A student's answer to a
    view that is mixed with another image says little of either: views must not be mixed.

    Args:
        classes: K.
        images: N, the number of images.
        momentum: the old mean's share in a new one.
        sharpness: the power that the probabilities of a mean are raised to; 1 leaves them as they are.

    Raises:
        UserError: the means do not fit into this machine's memory.
    """

    means: Tensor

    def __init__(self, classes: int, images: int, momentum: float, sharpness: float) -> None:
        super().__init__()
        refuse_large_banks("temporal-ensembling", images, 4 * images * classes, "take kd")
        self.momentum, self.sharpness = momentum, sharpness
        self.register_buffer("means", torch.full((images, classes), torch.nan))

    @single_precision
    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor) -> Tensor:
        """Compute ``KL(sharpened mean ‖ student)``; in training mode, update the means afterwards.

        Args:
            student: logits [B, K].
            teacher: logits [B, K]; what an image that was not seen before begins with.
            indices: of the images [B], from 0 to N - 1.

        Returns:
            [B]: an image's loss does not depend on the rest of the batch. It is 0 where the two agree and are sure.
        """
        means = self.means[indices]
        means = torch.where(means.isnan(), F.softmax(teacher, 1), means)
        target = F.log_softmax(self.sharpness * means.clamp(min=_LEAST).log(), 1)
        if self.training:
            answers = F.softmax(student.detach(), 1)
            self._remember(self.momentum * means + (1 - self.momentum) * answers, indices)
        return F.kl_div(F.log_softmax(student, 1), target, reduction="none", log_target=True).sum(1)

    @torch.no_grad()
    def _remember(self, means: Tensor, indices: Tensor) -> None:
        self.means.index_copy_(0, _of_all(indices), _of_all(means))


def _of_all(rows: Tensor) -> Tensor:
    """The rows of all processes; each has as many."""
    if not dist.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
