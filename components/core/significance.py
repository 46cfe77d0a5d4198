"""Paired tests and intervals: does the accuracy of two models on the same images differ?"""

import math
from dataclasses import dataclass
from statistics import NormalDist

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
        resamples: how many to draw, with ``seed``.
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


def paired_score_bound(
    correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_], confidence: float = 0.95
) -> float:
    """The lower end of the score interval of the accuracy difference a - b (Tango 1998, Statistics in Medicine 17).

    The variance is the one that the answers allow at the tested difference, not at the observed one, so that the bound
    keeps its level when few images tell the two apart, down to none: then it is about -4.8 / N. Half an image is taken
    off as continuity correction: it holds the error to the stated 2.5 %, which a test proves for 500 images by going
    through all outcomes, and ``benchmarks/promotion.py`` measures for other numbers. It takes what
    :func:`paired_bootstrap` does.

    Raises:
        ValueError: the arrays are empty, or are not of one length.
    """
    from scipy.optimize import brentq

    wins, losses, total = _discordant(correct_a, correct_b)
    if losses == total:
        return -1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return float(brentq(lambda tested: _score(wins, losses, total, tested) - z, -1 + 1e-12, (wins - losses) / total))


def images_needed(margin: float, confidence: float = 0.95) -> int:
    """The number of images from which the score bound of equal models is above -margin, for a margin in (0, 1)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = (1 + z * z * (1 - margin)) / 2
    return math.floor((half + math.sqrt(half * half - 0.25)) / margin) + 1


def _score(wins: int, losses: int, total: int, tested: float) -> float:
    """Tango's statistic less half an image: about standard normal when the true difference is ``tested``."""
    a, b = 2 * total, -wins - losses + (2 * total - wins + losses) * tested
    c = -losses * tested * (1 - tested)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # of losses, the likeliest at that difference
    variance = total * (2 * share + tested * (1 - tested))
    return (wins - losses - 0.5 - total * tested) / math.sqrt(max(variance, 1e-300))


def optimism(accuracy: float, n: int, looks: int) -> float:
    """The optimism of the best of ``looks`` equal models on ``n`` images: sigma sqrt(2 ln k).

    It bounds the expected maximum of k normal errors of spread sigma = sqrt(p (1 - p) / n), however they depend on each
    other; p is the models' own accuracy.
    """
    return math.sqrt(accuracy * (1 - accuracy) / n * 2 * math.log(looks))


def mcnemar(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> float:
    """The two-sided p-value of McNemar's test (1947) that a and b err equally often.

    With fewer than 25 images that only one of them got right it is the exact binomial test, else the chi-square with
    continuity correction. It takes what :func:`paired_bootstrap` does.

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
