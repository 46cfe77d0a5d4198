"""Training on classes of unequal size, so that a rare class counts as much as a frequent one.

``sampling`` shows every class equally often; ``logit-adjustment`` shows the images as they are and learns logits from
which the classes' frequencies are taken out (Menon et al. 2021).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.core.views.augment import batch_indices

Indices = npt.NDArray[np.int64]


class BalancedOrder:
    """The order in which epochs visit images when every class has as many places in an epoch as the others.

    A class has as many places as classes have labeled images on average, and an unlabeled image has one. A class's
    images take turns in its places, from one epoch to the next, so that none is visited twice before all others of its
    class were. Like the plain order it is a function of seed and step.

    Args:
        labels: of all images [N], negative for an image without one.
    """

    def __init__(self, labels: Indices) -> None:
        self._images = np.argsort(labels, kind="stable")
        classes, self._first, self._count = np.unique(labels[self._images], return_index=True, return_counts=True)
        mean = np.rint(self._count[classes >= 0].mean()).astype(np.int64)
        self._places = np.where(classes >= 0, mean, self._count)
        self._ends = self._places.cumsum()

    def __call__(self, seed: int, step: int, batch_size: int) -> tuple[Indices, Indices]:
        """Choose the images of a step.

        Returns:
            Indices [batch_size] into the images, and how often each was visited before.
        """
        places, epochs = batch_indices(seed, step, int(self._ends[-1]), batch_size)
        group = np.searchsorted(self._ends, places, side="right")
        turn = epochs * self._places[group] + places - (self._ends - self._places)[group]
        return self._images[self._first[group] + turn % self._count[group]], turn // self._count[group]


def order_for(balance: str, labels: Indices) -> BalancedOrder | None:
    """The balanced order of ``sampling``; None where every epoch visits each image once."""
    return BalancedOrder(labels) if balance == "sampling" else None


def log_priors_for(balance: str, labels: Indices, classes: int, device: torch.device) -> Tensor | None:
    """The logarithms [K] of the classes' shares of the labeled images, for ``logit-adjustment``; None without it.

    A class that no image shows counts as one image.
    """
    if balance != "logit-adjustment":
        return None
    count = _images_of_each(labels, classes).clip(min=1)
    return torch.from_numpy(np.log(count / count.sum())).float().to(device)


def class_weights_for(balance: str, labels: Indices, classes: int, device: torch.device) -> Tensor | None:
    """Weights [K] that are to a loss over all images at once what ``sampling`` is to batches; None without it."""
    if balance != "sampling":
        return None
    count = _images_of_each(labels, classes)
    return torch.from_numpy(count.sum() / np.count_nonzero(count) / count.clip(min=1)).float().to(device)


def adjusted(logits: Tensor, log_priors: Tensor | None) -> Tensor:
    """Logits [N, K] as the cross-entropy takes them: with the log priors added (Menon et al. 2021, eq. 10, τ = 1)."""
    return logits if log_priors is None else logits + log_priors


def _images_of_each(labels: Indices, classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(labels[labels >= 0], minlength=classes)
