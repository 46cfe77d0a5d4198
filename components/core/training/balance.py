"""Training on classes of unequal size, so that a rare class counts as much as a frequent one.

``sampling`` shows every class equally often; ``logit-adjustment`` shows the images as they are and learns logits from
which the classes' frequencies are taken out (Menon et al. 2021).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reflux.components.core.data.draws import batch_indices

Indices = npt.NDArray[np.int64]


class BalancedOrder:
    """The order in which epochs visit images when every class has as many places in an epoch as the others.

    A class has as many places as classes have labeled images on average, and an unlabeled image has one. A class's
    images take turns in its places, from one epoch to the next, so that none is visited twice before all others of its
    class were. Like the plain order it is a function of seed and step.

    Args:
        labels: of all images [N], negative for an image without one.
        shares: of the places of labeled images that each class gets [K], in place of equal ones; above 0 for a class
            that has an image.
    """

    def __init__(self, labels: Indices, shares: npt.NDArray[np.float64] | None = None) -> None:
        self._images = np.argsort(labels, kind="stable")
        classes, self._first, self._count = np.unique(labels[self._images], return_index=True, return_counts=True)
        labeled = self._count[classes >= 0]
        places = labeled.mean() if shares is None else shares[classes[classes >= 0]] * labeled.sum()
        self._places = self._count.copy()
        self._places[classes >= 0] = np.rint(places).astype(np.int64).clip(min=1)
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


def class_shares(balance: str, labels: Indices, classes: int) -> npt.NDArray[np.float64]:
    """The share [K] of each class in an epoch: its share of the labels, or with ``sampling`` an equal one."""
    count = _images_of_each(labels, classes)
    shown = count > 0 if balance == "sampling" else count
    return shown / shown.sum()


def order_for(balance: str, labels: Indices, shares: npt.NDArray[np.float64] | None = None) -> BalancedOrder | None:
    """The balanced order of ``sampling``, or that of certain shares; else None, and an epoch visits each image once."""
    return BalancedOrder(labels, shares) if balance == "sampling" or shares is not None else None


def log_priors_for(
    balance: str, labels: Indices, classes: int, device: torch.device, *others: Indices
) -> Tensor | None:
    """The logarithms [K] of the classes' shares of the labeled images, for ``logit-adjustment``; None without it.

    A class that no image shows counts as one image. ``others`` are the labels of further sets of images, each of which
    is shown as often as the first.
    """
    if balance != "logit-adjustment":
        return None
    counts = [_images_of_each(each, classes).clip(min=1) for each in (labels, *others)]
    shares = np.mean([count / count.sum() for count in counts], axis=0)
    return torch.from_numpy(np.log(shares)).float().to(device)


def class_weights_for(
    balance: str, labels: Indices, classes: int, device: torch.device, shares: npt.NDArray[np.float64] | None = None
) -> Tensor | None:
    """Weights [K] that are to a loss over all images at once what :func:`order_for` is to batches; None without it."""
    if balance != "sampling" and shares is None:
        return None
    count = _images_of_each(labels, classes)
    own = class_shares("sampling", labels, classes) if shares is None else shares
    return torch.from_numpy(own * count.sum() / count.clip(min=1)).float().to(device)


def adjusted(logits: Tensor, log_priors: Tensor | None) -> Tensor:
    """Logits [N, K] as the cross-entropy takes them: with the log priors added (Menon et al. 2021, eq. 10, τ = 1)."""
    return logits if log_priors is None else logits + log_priors


def _images_of_each(labels: Indices, classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(labels[labels >= 0], minlength=classes)
