"""Settings computed of several params: code that decides results, where the rest of the params are values.

Stages see them as properties of :class:`~reflux.components.core.params.sections.Params` and its sections, so that they
count as imported by every stage.
"""

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from reflux.components.core.params.distill import Distill

Role = Literal["teacher", "student"]
DISTILLED_FEATURES = "distilled-features"


def starts_from_weights(weights: str) -> bool:
    """True if ``student.weights`` names weights of a trained network."""
    return weights not in ("random", DISTILLED_FEATURES)


def pretrained_networks(mode: str, learns: Role | Literal["both"]) -> tuple[Role, ...]:
    """List the networks that ``pretrain`` trains, in their order.

    Args:
        mode: ``pretrain.mode``.
        learns: ``pretrain.learns``.
    """
    if mode in ("none", "zero-shot"):
        return ()
    return ("teacher", "student") if learns == "both" else (learns,)


def phases_of(steps: int, weights: str, distill: "Distill") -> dict[str, int]:
    """Divide the student's steps into the phases ``features``, ``distill`` and ``labels``, those that there are.

    Together they are ``student.steps``, the control's.

    Args:
        steps: ``student.steps``.
        weights: ``student.weights``.
        distill: the section.
    """
    features = max(1, round(distill.feature_share * steps)) if weights == DISTILLED_FEATURES else 0
    labels = max(1, round(distill.finish_share * steps)) if distill.finish == "labels" else 0
    phases = {"features": features, "distill": steps - features - labels, "labels": labels}
    return {name: count for name, count in phases.items() if count or name == "distill"}


def views_of_each(views: int | str, visits: int, images: int) -> int:
    """Count the views of each image whose soft labels are learned.

    Args:
        views: ``label.views``; with ``auto`` it is as often as the student visits each, so that no view repeats.
        visits: of images, by the student, while it learns from soft labels.
        images: how many there are.
    """
    return math.ceil(visits / max(1, images)) if isinstance(views, str) else views
