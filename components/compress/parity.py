"""Comparison of a shipped file's logits with the student's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.errors import UserError
from components.core.export.onnx_file import Logits, disagreements
from components.core.images.shards import Pixels

BATCHES = (1, 2, 5)  # a program exported for one batch size would refuse these, or get them wrong


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
