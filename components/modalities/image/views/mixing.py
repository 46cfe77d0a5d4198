"""Views mixed with another image's: Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

A mixed view is a function of (seed, image id, view), as a plain one is, and of the set of images: its partner is the
first image at or after a random place on the ring of all ids (consistent hashing), so that an added image becomes the
partner of few others. The partner is rendered in its own plain view of the same number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.data.draws import Uint64s, draws
from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image.views.augment import DRAWS, render, view_draws

Indices = npt.NDArray[np.int64]

_MIXING = ("mixup", "cutmix", "mixup_alpha", "cutmix_alpha")
# A blend in 128 steps is integer arithmetic, the same to the bit on every device, and fits into 16 bits.
_BITS = 7
_WHOLE = 1 << _BITS


@dataclass(frozen=True)
class Mix:
    """The mixing of views [B].

    Attributes:
        mixed: True for the views that are mixed, [B].
        partners: index [B] of the image that each is mixed with.
        share: of the image itself in the result, float64 [B]; 1 for a view that is not mixed.
        boxes: top, left, bottom and right [B, 4] of the box that CutMix takes from the partner; empty for Mixup.
    """

    mixed: npt.NDArray[np.bool_]
    partners: Indices
    share: npt.NDArray[np.float64]
    boxes: Indices


class Mixing:
    """Chooses the views of a set of images to mix, and their partners.

    Args:
        ids: of all images, uint64 [N].
        seed: of the views.
        side: of an image, in pixels.
        mixup: the share of views that are blended with another image's.
        cutmix: the share of views in which a box shows another image's.
        mixup_alpha: the image's share in a blend is drawn from Beta(alpha, alpha).
        cutmix_alpha: the same for CutMix's share outside the box, before the box is clipped at the border.
    """

    def __init__(
        self, ids: Uint64s, seed: int, side: int, mixup: float, cutmix: float, mixup_alpha: float, cutmix_alpha: float
    ) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._ring = ids[self._order]
        self._seed, self._side = seed, side
        self._mixup, self._cutmix = mixup, cutmix
        self._mixup_alpha, self._cutmix_alpha = mixup_alpha, cutmix_alpha

    def __call__(self, ids: Uint64s, views: Indices) -> Mix:
        """The mixing of views [B] of images ``ids`` [B]."""
        kind, _, down, across = draws(self._seed, ids, views, 4, first=DRAWS).T
        blended = kind < self._mixup
        cut = ~blended & (kind < self._mixup + self._cutmix)
        share = np.where(blended, np.rint(self._beta(ids, views, self._mixup_alpha) * _WHOLE) / _WHOLE, 1.0)
        reach = np.rint(self._side * np.sqrt(1 - self._beta(ids, views, self._cutmix_alpha)))
        corners = [np.floor(center * self._side) - reach // 2 for center in (down, across)]
        boxes = np.stack([*corners, *(corner + reach for corner in corners)], axis=1).clip(0, self._side)
        boxes = np.where(cut[:, None], boxes, 0).astype(np.int64)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = np.where(cut, 1 - area / self._side**2, share)
        return Mix(blended | cut, self._order[self._places(ids, views)], share, boxes)

    def partner_ids(self, ids: Uint64s, views: int) -> Uint64s:
        """The ids [N, V] of the partners of the first V views of images [N]; an image's own where it is not mixed."""
        own, numbers = np.repeat(ids, views), np.tile(np.arange(views), len(ids))
        partners = self._ring[self._places(own, numbers)]
        kind = draws(self._seed, own, numbers, 1, first=DRAWS)[:, 0]
        return np.where(kind < self._mixup + self._cutmix, partners, own).reshape(len(ids), views)

    def _places(self, ids: Uint64s, views: Indices) -> Indices:
        """The partners' places on the ring; never the image's own, unless it is the only one."""
        point = draws(self._seed, ids, views, 1, first=DRAWS + 1)[:, 0]
        whole = (point * float(1 << 53)).astype(np.uint64) << np.uint64(11)
        place = np.searchsorted(self._ring, whole) % len(self._ring)
        return np.where(self._ring[place] == ids, (place + 1) % len(self._ring), place)

    def _beta(self, ids: Uint64s, views: Indices, alpha: float) -> npt.NDArray[np.float64]:
        """A draw from Beta(alpha, alpha) for each view, by Jöhnk's rejection (1964), uniform when alpha is 1."""
        counter = DRAWS + 4
        if alpha == 1:
            return draws(self._seed, ids, views, 1, first=counter)[:, 0]
        shares, waiting = np.empty(len(ids)), np.arange(len(ids))
        while len(waiting):
            one, other = (draws(self._seed, ids[waiting], views[waiting], 2, first=counter) ** (1 / alpha)).T
            total = one + other
            taken = (total <= 1) & (total > 0)
            shares[waiting[taken]] = one[taken] / total[taken]
            waiting, counter = waiting[~taken], counter + 2
        return shares


class Views:
    """The exact views of a set of images, on which ``label`` and ``distill`` must agree.

    Args:
        images: the images.
        seed: of the views, and of the order in which epochs visit the images.
        augment: settings of :func:`reflux.components.modalities.image.views.augment.render` and :class:`Mixing`.
    """

    def __init__(self, images: Shard, seed: int, augment: dict[str, Any]) -> None:
        self.images, self.seed = images, seed
        self._augment = without_mixing(augment)
        self.mixing = mixing_of(images, images.ids, seed, augment)

    def mix(self, indices: Indices, views: Indices) -> Mix | None:
        """The mixing of views [B] of images [B]; None if the augmentation mixes none."""
        return self.mixing(self.images.ids[indices], views) if self.mixing else None

    def pixels(self, indices: Indices, views: Indices, device: torch.device) -> Tensor:
        """Pixels uint8 [B, C, H, W] of views [B] of images [B]."""
        pixels = self._plain(indices, views, device)
        mix = self.mix(indices, views)
        if mix is not None and mix.mixed.any():
            rows = np.flatnonzero(mix.mixed)
            others = self._plain(mix.partners[rows], views[rows], device)
            weights = _weights(mix.share[rows], mix.boxes[rows], pixels.shape[-1]).to(device)
            where = torch.from_numpy(rows).to(device)
            blend = pixels[where].short().mul_(weights)
            blend += others.short().mul_(_WHOLE - weights)
            pixels[where] = blend.add_(_WHOLE // 2).bitwise_right_shift_(_BITS).to(torch.uint8)
        return pixels

    def _plain(self, indices: Indices, views: Indices, device: torch.device) -> Tensor:
        uniform = view_draws(self.seed, self.images.ids[indices], views)
        return render(self.images.images[indices], uniform, **self._augment, device=device)


def _weights(share: npt.NDArray[np.float64], boxes: Indices, side: int) -> Tensor:
    """The weight of the image itself at each pixel [B, 1, H, W], in 128ths."""
    line = np.arange(side)
    top, left, bottom, right = boxes.T[:, :, None]
    inside = ((line >= top) & (line < bottom))[:, :, None] & ((line >= left) & (line < right))[:, None, :]
    cut = (bottom > top)[:, :, None] & (right > left)[:, :, None]
    blend = np.rint(share * _WHOLE)[:, None, None]
    weights = np.where(cut, np.where(inside, 0, _WHOLE), blend)
    return torch.from_numpy(weights.astype(np.int16))[:, None]


def mixing_of(images: Shard, ids: Uint64s, seed: int, augment: dict[str, Any]) -> Mixing | None:
    """The mixing of images ``ids`` of the size of ``images``; None if the augmentation mixes none."""
    if not (augment.get("mixup") or augment.get("cutmix")):
        return None
    return Mixing(ids, seed, images.images.shape[1], **{name: augment[name] for name in _MIXING})


def own_ids(ids: Uint64s, views: int) -> Uint64s:
    """The partners' ids [N, V] where no view is mixed; see :meth:`Mixing.partner_ids`."""
    return np.repeat(ids[:, None], views, axis=1)


def without_mixing(augment: dict[str, Any]) -> dict[str, Any]:
    """The augmentation without its mixing."""
    return {name: value for name, value in augment.items() if name not in _MIXING}


def stored_augment(augment: dict[str, Any], mixed_targets: str) -> dict[str, Any]:
    """The part of the student's augmentation that the views with stored soft labels have.

    ``mixed_targets`` are teacher, its logits of the mixed view (Beyer et al. 2022), or mixture, of its plain ones.
    """
    mixes = augment["mixup"] or augment["cutmix"]
    return augment if mixes and mixed_targets == "teacher" else without_mixing(augment)


def mixed_labels(labels: Tensor, indices: Indices, mix: Mix | None, classes: int) -> tuple[Tensor, Tensor]:
    """The hard labels of views that may be mixed.

    Args:
        labels: of all images [N], negative for an image without one.
        indices: of the images [B].
        mix: of their views; None if the augmentation mixes none.
        classes: the number of classes, K.

    Returns:
        The targets of the cross-entropy: class indices [B], or probabilities [B, K] when views are mixed; and labels
        [B], negative where an image or its partner has none.
    """
    own = labels[indices]
    if mix is None:
        return own.clamp(min=0), own
    other = torch.where(torch.from_numpy(mix.mixed), labels[mix.partners], own)
    share = torch.from_numpy(mix.share).float()[:, None]
    one, two = (F.one_hot(each.clamp(min=0), classes).float() for each in (own, other))
    return share * one + (1 - share) * two, torch.minimum(own, other)
