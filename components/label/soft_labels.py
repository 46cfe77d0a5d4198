"""The teacher's answers to exact views, and the proof that the stored ones are these."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.core.errors import UserError
from components.core.models.pixel_model import PixelModel
from components.core.teacher.hooks import teacher_outputs
from components.core.teacher.soft_labels import Format, Indices, SoftLabels
from components.core.views.mixing import Views
from components.label.store import KEPT

# bfloat16 keeps 8 bits: two runs of the teacher on other batches may differ by this share of the logits' range.
_TOLERANCE = 0.02

# From the plain softmax to the softest that recipes of the literature use.
_TEMPERATURES = (1, 2, 4, 8)


def answers(
    indices: Indices,
    views: Indices,
    teacher: PixelModel,
    shown: Views,
    device: torch.device,
) -> Tensor:
    """The teacher's logits float32 [B, K] for views [B] of images [B], on the CPU."""
    return teacher_outputs(teacher, (), shown.pixels(indices, views, device), device)[0].cpu()


def prove(
    store: SoftLabels, images: int, sample: int, seed: int, answer: Callable[[Indices, Indices], Tensor]
) -> dict[str, float]:
    """Recompute a sample of the stored soft labels, one view at a time, and compare.

    Args:
        store: what was written.
        images: how many it was made for.
        sample: how many views are recomputed.
        seed: chooses them.
        answer: the teacher's logits of views [B] of images [B]; see :func:`answers`.

    Returns:
        n, max_abs_difference and the tolerance it was held to, and what :func:`storing_error` finds.

    Raises:
        UserError: the stored and the recomputed logits differ by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    views, indices = rng.integers(0, store.views, sample), rng.integers(0, images, sample)
    exact = torch.cat([answer(indices[i : i + 1], views[i : i + 1]) for i in range(sample)])
    worst = float(store.format.distance(exact, store.records(indices, views)).max())
    tolerance = _TOLERANCE * float(exact.max() - exact.min())
    if worst > tolerance:
        raise UserError(
            f"Recomputed soft labels differ by {worst:.3g} from the stored ones (tolerance {tolerance:.3g}), perhaps "
            f"because they were made on other hardware: delete {KEPT} and run again; if it stays, report a bug."
        )
    found = {"n": sample, "max_abs_difference": worst, "tolerance": tolerance}
    return found | storing_error(store.format, exact)


def storing_error(format: Format, exact: Tensor) -> dict[str, float]:
    """What storing alone changes in logits [B, K].

    Returns:
        Dense: the largest difference of a logit by its rounding. Top-k: mean and largest KL(exact ‖ stored) at several
        temperatures.
    """
    again = format.unpack(format.pack(exact))
    if not format.top_k:
        return {"storing_max_abs_difference": float((again - exact).abs().max())}
    found: dict[str, float] = {}
    for temperature in _TEMPERATURES:
        log_again, log_exact = (F.log_softmax(logits.double() / temperature, dim=1) for logits in (again, exact))
        kl = F.kl_div(log_again, log_exact, reduction="none", log_target=True).sum(1)
        found |= {
            f"storing_kl_mean_T{temperature}": float(kl.mean()),
            f"storing_kl_max_T{temperature}": float(kl.max()),
        }
    return found
