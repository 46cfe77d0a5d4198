"""Pareto fronts: which candidates no other one beats in every objective, and when a training run is clearly worse.

A point is a candidate's objectives as losses: of each, less is better.
"""

from collections.abc import Sequence

import numpy as np

Point = Sequence[float]

ETA = 2  # one in so many goes on from a rung (Jamieson and Talwalkar 2016)
FEW = 4  # trials say little of what is usual


def dominates(one: Point, other: Point, margin: float = 0.0) -> bool:
    """Tell if a point is no worse in any objective and better in one; the first by more than a margin, if one is given.

    With a margin the first objective must differ: what is as good and a little smaller does not stop a training run.
    """
    if margin:
        return one[0] < other[0] - margin and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front(points: Sequence[Point]) -> list[int]:
    """The places of the points that no other one dominates; of equal ones, the first."""
    return [
        place
        for place, point in enumerate(points)
        if not any(dominates(other, point) for other in points) and point not in points[:place]
    ]


def knee(points: Sequence[Point]) -> int:
    """The place of the point of a front that is farthest from the plane through its ends.

    There a little more of one objective begins to cost much of another (Das 1999, Structural Optimization 18). Each
    objective is scaled to the front's range.
    """
    losses = np.asarray(points, np.float64)
    spans = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spans > 0, spans, 1.0)
    return int(scaled.sum(axis=1).argmin())


def goes_on(own: Point, others: Sequence[Point], margin: float) -> bool:
    """Tell if a training run goes on from a rung: asynchronous successive halving with several objectives.

    Trials are ranked by how many others clearly dominate them (Fonseca and Fleming 1993; Schmucker et al. 2021,
    arXiv:2106.12639), and the better half goes on.

    Args:
        own: the trial's losses at the rung, accuracy first.
        others: those of the trials that have been there.
        margin: by which an accuracy is clearly better.
    """
    if len(others) < FEW:
        return True
    points = [own, *others]
    ranks = [sum(dominates(other, point, margin) for other in points) for point in points]
    return sum(rank < ranks[0] for rank in ranks) < len(points) / ETA
