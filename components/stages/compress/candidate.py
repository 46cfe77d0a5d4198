"""Whose weights ship: the student's, or those of its control where the student does not beat it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Trained = Literal["distilled", "labels"]


@dataclass(frozen=True)
class Candidate:
    """The weights that the files are made from.

    Attributes:
        trained: by what: ``distilled``, or ``labels`` alone, as the control is.
        why: for people.
    """

    trained: Trained
    why: str


def choose(student: npt.NDArray[np.bool_], control: npt.NDArray[np.bool_]) -> Candidate:
    """Choose between a student and its control, the same network: the one with more right answers, else the student.

    Both were right [N] on the same validation images. This is the empirical success rule (Manski 2004, Econometrica
    72). Its largest regret, the chance to take the worse one times how much worse it is, is the smallest of all rules
    for two samples of one size (Stoye 2009, Journal of Econometrics 151). A test of significance in either direction
    would keep the worse one more often, as validation images are few. Where a share s of the images tells the two
    apart, the regret is 0.17 sqrt(s / N) at most: of 500 images and a tenth, a quarter of a point (issue 42; a test
    draws it).
    """
    wins, losses = int((student & ~control).sum()), int((control & ~student).sum())
    why = (
        f"of {len(student):,} validation images the distilled student is right on {student.sum():,}, its control, "
        f"trained on the labels alone, on {control.sum():,} ({wins:,} that only the student gets right, "
        f"{losses:,} that only the control does)"
    )
    return Candidate("labels" if losses > wins else "distilled", why)
