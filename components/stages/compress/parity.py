"""Comparison of a file's logits with the student's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.core.data.shards import Pixels
from reflux.components.core.errors import UserError
from reflux.components.core.export.logits import Logits, disagreements
from reflux.components.core.significance import paired_score_bound, share_bound

BATCHES = (1, 2, 5)  # a program exported for one batch size would refuse these, or get them wrong
_LEAST_AGREEMENT = 0.9  # of an int8 file: of all that were measured, the least was .95 (mobilenetv3_small_100)
_CONFIDENCE = 0.975


@dataclass(frozen=True)
class Parity:
    """The difference between a file's logits and the student's, over all images, classes and batch sizes."""

    max_abs_logit_difference: float
    agreement: float  # the share of images on which both predict the same class
    disagreements: int  # images on which they predict different classes, ties aside
    n: int


def compare(run: Callable[[Pixels], Logits], pixels: Pixels, expected: Logits) -> Parity:
    """Run a file on all images at once and in batches of 1, 2 and 5, and compare with the student's logits [N, K]."""
    logits = run(pixels)
    sizes = [size for size in BATCHES if size <= len(pixels)]
    differences = [_largest(run(pixels[:size]), expected[:size]) for size in sizes]
    agreement = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
    largest = max([_largest(logits, expected), *differences])
    return Parity(largest, agreement, len(disagreements(expected, logits)), len(pixels))


def require(parity: Parity, name: str, bound: float) -> None:
    """Refuse a file that is not the student.

    Raises:
        UserError: a logit differs by more than ``bound``, ``compress.max_logit_difference``, or a prediction differs.
    """
    if not parity.max_abs_logit_difference <= bound:  # NaN fails too
        raise UserError(
            f"{name} is not the student: its logits differ by up to {parity.max_abs_logit_difference:.3g}, and "
            f"compress.max_logit_difference allows {bound:g}; raise it in params.yaml, or choose another student.model."
        )
    if parity.disagreements:
        raise UserError(
            f"{name} is not the student: it predicts another class on {parity.disagreements} of {parity.n} validation "
            "images; choose another student.model in params.yaml."
        )


def require_int8(int8: Logits, fp32: Logits, labels: npt.NDArray[np.int64], name: str, max_loss: float) -> None:
    """Refuse an int8 file that surely is worse than the fp32 one, or another network.

    Args:
        int8, fp32: their logits [N, K] of the same validation images.
        labels: of these, [N].
        name: of the int8 file.
        max_loss: of accuracy, ``compress.max_loss``.

    Raises:
        UserError: a logit is not finite; the files surely agree on fewer than nine in ten images; or the int8 file
            surely loses more than ``max_loss``, by the bound of their paired difference (Tango 1998).
    """
    if not np.isfinite(int8).all():
        raise UserError(f"{name} gives logits that are not finite: choose another compress.ships in params.yaml.")
    n, other = len(labels), len(disagreements(fp32, int8))
    if share_bound(n - other, n, "upper", _CONFIDENCE) < _LEAST_AGREEMENT:
        raise UserError(
            f"{name} is not the student: it predicts another class on {other:,} of {n:,} validation images; choose "
            "another compress.ships or student.model in params.yaml."
        )
    right, expected = (logits.argmax(axis=1) == labels for logits in (int8, fp32))
    if paired_score_bound(expected, right) > max_loss:
        raise UserError(
            f"{name} is right on {right.sum():,} of {n:,} validation images, the fp32 file on {expected.sum():,}: it "
            f"surely loses more than compress.max_loss = {max_loss:g}; raise that in params.yaml, or choose another "
            "compress.ships."
        )


def entry(parity: Parity, path: Path, sha256: str) -> dict[str, float | int | str]:
    """The file's entry in ``parity.json``."""
    return {
        "max_abs_logit_difference": parity.max_abs_logit_difference,
        "agreement": parity.agreement,
        "n": parity.n,
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
    }


def _largest(a: Logits, b: Logits) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())
