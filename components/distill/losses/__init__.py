"""Distillation losses as pure functions of tensors, each with its paper's equation.

``[B]`` is a value an image, of which the training takes the mean; ``[]`` is a loss that couples the images of a batch.
All compute in single precision, also under autocast, and are 0, with gradient 0, where student and teacher agree;
CRD, whose anchors are compared with other images too, is not.
"""

from components.core.teacher.ensemble import average, confidence_weighted
from components.distill.losses.crd import Contrast, bank_bytes, nce, step_bytes
from components.distill.losses.features import (
    Fusion,
    ReviewFusion,
    attention_transfer,
    fitnet,
    hcl,
    similarity_preserving,
)
from components.distill.losses.labels import hard_loss, mixture, share_of_labels, total_loss
from components.distill.losses.logits import dist, dkd, kd, mse_logits, standardize
from components.distill.losses.relations import rkd_angle, rkd_distance

__all__ = [
    "Contrast",
    "Fusion",
    "ReviewFusion",
    "attention_transfer",
    "average",
    "bank_bytes",
    "confidence_weighted",
    "dist",
    "dkd",
    "fitnet",
    "hard_loss",
    "hcl",
    "kd",
    "mixture",
    "mse_logits",
    "nce",
    "rkd_angle",
    "rkd_distance",
    "share_of_labels",
    "similarity_preserving",
    "standardize",
    "step_bytes",
    "total_loss",
]
