"""Contrastive representation distillation (Tian, Krishnan and Isola 2020)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.precision import single_precision
from reflux.components.stages.distill.losses.banks import refuse_large_banks
from reflux.components.stages.distill.losses.register import loss


@single_precision
def nce(scores: Tensor, log_z: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimation of the anchor's own image among K + 1 (Tian et al. 2020, equations 18 and 19).

    It is ``-log h(own) - Σ log (1 - h(others))``, with ``h = p / (p + K / N)`` and ``p = exp(score) / Z`` (Z as in the
    authors' code), computed from logarithms, so that no constant is needed against a division by zero.

    Args:
        scores: cosines over τ [B, 1 + K], the anchor's own image first.
        log_z: logarithm of the normalization constant, [].
        images: N, the number of images that the others are drawn from.
    """
    log_noise = math.log((scores.shape[1] - 1) / images)
    logit = scores - log_z - log_noise
    return -F.logsigmoid(logit[:, 0]) - F.logsigmoid(-logit[:, 1:]).sum(1)


def bank_bytes(images: int, dimensions: int) -> int:
    """Bytes of the two memory banks of :class:`Contrast`."""
    return 2 * 4 * images * dimensions


@loss("crd", memory=True)
class Contrast(nn.Module):
    """Pulls student's and teacher's embeddings of an image together, and those of different images apart.

    Either side's embedding of an image is compared with the other side's of the same image, and of K images drawn from
    a memory bank, which holds a running embedding of every image.

    The banks and the normalization constants are buffers: they are saved and restored with the module. The authors'
    banks begin as noise, so that an image has no positive until it was seen once: over the 240 epochs of their runs it
    hardly matters, over one or two it is most of the training. Here :meth:`fill` comes before the first step.

    K images are drawn with torch's generator, uniformly, the image itself included, as in equation 10's product of
    marginals. The authors' CIFAR-100 run drew them from other classes, which is impossible for unlabeled images.

    Args:
        student_dim: features of the student.
        teacher_dim: features of the teacher.
        images: N, the number of images.
        dimensions: of the embedding that both are projected to.
        negatives: K.
        temperature: τ.
        momentum: the old embedding's share in a bank's new one.

    Raises:
        UserError: the banks do not fit into this machine's memory.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    log_z: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        images: int,
        dimensions: int,
        negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        remedy = f"lower its dimensions ({dimensions}), or take rkd"
        refuse_large_banks("crd", images, bank_bytes(images, dimensions), remedy)
        self.embed_student, self.embed_teacher = nn.Linear(student_dim, dimensions), nn.Linear(teacher_dim, dimensions)
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        reach = math.sqrt(3 / dimensions)  # rows have length 1 on average
        self.register_buffer("student_bank", torch.empty(images, dimensions).uniform_(-reach, reach))
        self.register_buffer("teacher_bank", torch.empty(images, dimensions).uniform_(-reach, reach))
        self.register_buffer("log_z", torch.full((2,), math.nan))

    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor, others: Tensor | None = None) -> Tensor:
        """Compute the loss of both sides; in training mode, update the banks afterwards.

        The normalization constants Z are estimated from the first batch and kept, as in the authors' code.

        Args:
            student: features [B, …].
            teacher: features [B, …], without gradient.
            indices: of the images [B], from 0 to N - 1.
            others: indices of the images to compare with [B, K]; None draws them.

        Returns:
            [B]: apart from the banks, an image's loss does not depend on the rest of the batch.
        """
        if others is None:
            others = torch.randint(len(self.student_bank), (len(indices), self.negatives), device=indices.device)
        return self._contrasted(student, teacher, indices, torch.cat([indices[:, None], others], 1))

    @torch.no_grad()
    @single_precision
    def fill(self, student: Tensor, teacher: Tensor, indices: Tensor) -> None:
        """Write the embeddings of images [B] into the banks; features as in :meth:`forward`."""
        self.student_bank.index_copy_(0, indices, F.normalize(self.embed_student(student.flatten(1))))
        self.teacher_bank.index_copy_(0, indices, F.normalize(self.embed_teacher(teacher.flatten(1))))

    @single_precision
    def _contrasted(self, student: Tensor, teacher: Tensor, indices: Tensor, among: Tensor) -> Tensor:
        mine = F.normalize(self.embed_student(student.flatten(1)))
        theirs = F.normalize(self.embed_teacher(teacher.flatten(1)))
        images = len(self.student_bank)
        scores = (self._scores(mine, self.teacher_bank, among), self._scores(theirs, self.student_bank, among))
        if self.training:
            log_z = torch.stack([self._log_z(side.detach(), images) for side in scores])
            self.log_z.copy_(torch.where(self.log_z.isnan(), log_z, self.log_z))
            self._remember(self.student_bank, mine.detach(), indices)
            self._remember(self.teacher_bank, theirs.detach(), indices)
        return nce(scores[0], self.log_z[0], images) + nce(scores[1], self.log_z[1], images)

    def _scores(self, anchors: Tensor, bank: Tensor, among: Tensor) -> Tensor:
        """Compute cosines over τ of anchors [B, D] and the bank's embeddings of images [B, 1 + K]."""
        # Gathering a row for every image and negative is much memory traffic: a product with a small bank is cheaper.
        if len(bank) <= 8 * among.shape[1]:
            return (anchors @ bank.T.clone()).gather(1, among) / self.temperature
        return torch.einsum("bd,bkd->bk", anchors, bank[among]) / self.temperature

    @staticmethod
    def _log_z(scores: Tensor, images: int) -> Tensor:
        return scores.logsumexp((0, 1)) - math.log(scores.numel()) + math.log(images)

    def _remember(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        running = self.momentum * bank[indices] + (1 - self.momentum) * embeddings
        bank.index_copy_(0, indices, F.normalize(running))
