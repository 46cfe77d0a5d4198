"""Whether two models that answered the same images really differ."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FEW_DISCORDANT_PAIRS = 25  # below it the chi-square approximation is poor (McNemar; Fagerland et al. 2013)


@dataclass(frozen=True)
class Interval:
    """An accuracy difference (a - b, 0.01 = one point) and its bootstrap interval."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    correct_a: npt.NDArray[np.bool_],
    correct_b: npt.NDArray[np.bool_],
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """The percentile interval of the accuracy difference a - b over resampled images (Efron 1979).

    An image's paired difference is -1, 0 or 1, so resampling images with replacement draws the three counts from a
    multinomial: the same distribution as resampling rows, in constant memory.

    Args:
        correct_a: [N], whether model a was right on each image.
        correct_b: [N], the same images in the same order.
        resamples: how many bootstrap samples to draw.
        seed: of the draw; the same seed gives the same interval.
        confidence: two-sided level; the lower end alone holds at (1 + confidence) / 2.

    Raises:
        ValueError: the arrays are empty, or are not of one length.
    """
    wins, losses, total = _discordant(correct_a, correct_b)
    shares = [losses / total, (total - wins - losses) / total, wins / total]
    counts = np.random.default_rng(seed).multinomial(total, shares, size=resamples)
    differences = (counts[:, 2] - counts[:, 0]) / total
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval((wins - losses) / total, float(low), float(high))


def mcnemar(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> float:
    """The two-sided p-value of McNemar's test (1947) that a and b err equally often.

    With fewer than 25 images that only one of them got right it is the exact binomial test, else the chi-square with
    continuity correction.

    Args:
        correct_a: [N], whether model a was right on each image.
        correct_b: [N], the same images in the same order.

    Raises:
        ValueError: the arrays are empty, or are not of one length.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    wins, losses, _ = _discordant(correct_a, correct_b)
    # The concordant cells do not enter the statistic.
    return float(test([[0, wins], [losses, 0]], exact=wins + losses < _FEW_DISCORDANT_PAIRS, correction=True).pvalue)


def _discordant(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"paired answers must be two arrays [N] of one length N > 0, not {a.shape} and {b.shape}")
    return int((a & ~b).sum()), int((b & ~a).sum()), a.size
