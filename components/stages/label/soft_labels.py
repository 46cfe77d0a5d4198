"""The teacher's logits of exact views, and the proof that the stored ones are equal."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.errors import UserError
from reflux.components.core.teacher.soft_labels import Format, Indices, SoftLabels
from reflux.components.modalities.image.layers import teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.label.store import KEPT

# bfloat16 keeps 8 bits: two runs of the teacher on other batches may differ by this share of the logits' range.
_TOLERANCE = 0.02

# From the plain softmax to the softest in the recipes of the literature.
_TEMPERATURES = (1, 2, 4, 8)


def teacher_logits(
    indices: Indices, numbers: Indices, teacher: PixelModel, views: Views, device: torch.device
) -> Tensor:
    """The teacher's logits float32 [B, K] of the views with these numbers [B] of images [B], on the CPU."""
    return teacher_outputs(teacher, (), views.pixels(indices, numbers, device), device)[0].cpu()


def prove(
    store: SoftLabels, images: int, sample: int, seed: int, logits_of: Callable[[Indices, Indices], Tensor]
) -> dict[str, float]:
    """Recompute ``sample`` views of the soft labels stored for ``images``, one at a time, and compare.

    Returns:
        n, max_abs_difference, its tolerance, and the figures of :func:`storing_error`.

    Raises:
        UserError: the stored and the recomputed logits differ by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    views, indices = rng.integers(0, store.views, sample), rng.integers(0, images, sample)
    exact = torch.cat([logits_of(indices[i : i + 1], views[i : i + 1]) for i in range(sample)])
    worst = float(store.format.distance(exact, store.records(indices, views)).max())
    tolerance = _TOLERANCE * float(exact.max() - exact.min())
    if worst > tolerance:
        raise UserError(
            f"Recomputed soft labels differ by {worst:.3g} from the stored ones (tolerance {tolerance:.3g}), perhaps "
            f"because they were made on other hardware: delete {KEPT} and run again; if it happens again, report a bug."
        )
    return {"n": sample, "max_abs_difference": worst, "tolerance": tolerance, **storing_error(store.format, exact)}


def storing_error(format: Format, exact: Tensor) -> dict[str, float]:
    """The error that storing adds to logits [B, K].

    Returns:
        Dense: the largest rounding error of a logit. Top-k: mean and largest KL(exact ‖ stored) at several
        temperatures.
    """
    stored = format.unpack(format.pack(exact))
    if not format.top_k:
        return {"storing_max_abs_difference": float((stored - exact).abs().max())}
    errors: dict[str, float] = {}
    for temperature in _TEMPERATURES:
        log_stored, log_exact = (F.log_softmax(logits.double() / temperature, dim=1) for logits in (stored, exact))
        kl = F.kl_div(log_stored, log_exact, reduction="none", log_target=True).sum(1)
        errors |= {
            f"storing_kl_mean_T{temperature}": float(kl.mean()),
            f"storing_kl_max_T{temperature}": float(kl.max()),
        }
    return errors
