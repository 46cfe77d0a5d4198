"""Paired tests and intervals: does the accuracy of two models on the same images differ?"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

_MOST_IMAGES = 10**15  # more than any test split holds
_FAR = 40  # standard deviations, beyond which no maximum of normal errors lies


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
    return score_bound(*_discordant(correct_a, correct_b), confidence)


def score_bound(wins: int, losses: int, total: int, confidence: float = 0.95) -> float:
    """The bound of :func:`paired_score_bound` from counts: images that a alone got right, that b alone did, and all."""
    from scipy.optimize import brentq

    if losses == total:
        return -1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return float(brentq(lambda tested: _score(wins, losses, total, tested) - z, -1 + 1e-12, (wins - losses) / total))


def images_needed(margin: float, disagreement: float = 0.0, confidence: float = 0.95) -> int:
    """The number of images from which the score bound of equal models is above -margin.

    Args:
        margin: accuracy that may be lost, in (0, 1).
        disagreement: the share of images that just one of the two models gets right, half of them each; 0 for models
            that answer alike, of which the fewest images are needed.
        confidence: of :func:`paired_score_bound`.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def shown(n: int) -> bool:
        return _score(n * disagreement / 2, n * disagreement / 2, n, -margin) > z

    return bisect_left(range(_MOST_IMAGES), True, lo=1, key=shown)


def margin_shown(n: int, confidence: float = 0.95) -> float:
    """The least margin that ``n`` images can exclude, of models that answer alike; see :func:`images_needed`."""
    return -score_bound(0, 0, n, confidence)


def _score(wins: float, losses: float, total: int, tested: float) -> float:
    """Tango's statistic less half an image: about standard normal when the true difference is ``tested``."""
    a, b = 2 * total, -wins - losses + (2 * total - wins + losses) * tested
    c = -losses * tested * (1 - tested)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # of losses, the likeliest at that difference
    variance = total * (2 * share + tested * (1 - tested))
    return (wins - losses - 0.5 - total * tested) / math.sqrt(max(variance, 1e-300))


def share_bound(right: int, n: int, side: Literal["lower", "upper"], confidence: float) -> float:
    """The one-sided bound of a share, ``right`` of ``n`` images (Clopper and Pearson 1934, Biometrika 26).

    It is exact: whatever the true share is, it is beyond the bound with a probability of ``1 - confidence`` at most.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, n, alternative="greater" if side == "lower" else "less").proportion_ci(confidence)
    return float(interval.low if side == "lower" else interval.high)


def chance_to_reach(share: float, n: int, minimum: float, confidence: float | None = None) -> float:
    """The probability that ``n`` images show a model of a true accuracy to reach a minimum.

    Args:
        share: the true accuracy.
        n: test images.
        minimum: of the measured accuracy or, with a confidence, of its lower :func:`share_bound`.
        confidence: None compares the measured accuracy.
    """
    from scipy.stats import binom

    def reaches(right: int) -> bool:
        return (right / n if confidence is None else share_bound(right, n, "lower", confidence)) >= minimum

    fewest = bisect_left(range(n + 1), True, key=reaches)
    return float(binom.sf(fewest - 1, n, share))


def too_low(counts: Sequence[tuple[int, int]], minimum: float) -> float:
    """The p-value that every one of several groups of images truly reaches a minimum, corrected for their number.

    It is the least of the groups' exact binomial p-values times their number (Bonferroni; the first step of Holm 1979).
    ``counts`` are the right answers and the images of each group.
    """
    from scipy.stats import binom

    least = min(float(binom.cdf(right, n, minimum)) for right, n in counts)
    return min(1.0, least * len(counts))


def optimism(disagreement: float, n: int, models: int) -> float:
    """How much better than it is the best of equal models looks, by chance alone: the expected value.

    The models share their images, and so what is easy or hard about these: luck is only what is each model's own. Any
    two equal models differ by a normal error of the variance ``disagreement / n``, half of it each one's own. Of k
    independent normal errors the expected maximum is computed exactly: ``E = ∫ (1 - Φᵏ) over x > 0 - ∫ Φᵏ over x < 0``.

    Args:
        disagreement: the share of images that just one of two such models gets right. Independent models of accuracy p
            would have 2 p (1 - p); models of one task that were trained alike have much less.
        n: test images.
        models: k.
    """
    if models < 2:
        return 0.0
    from scipy.integrate import quad
    from scipy.special import log_ndtr

    above, _ = quad(lambda x: -math.expm1(models * log_ndtr(x)), 0, _FAR)
    below, _ = quad(lambda x: math.exp(models * log_ndtr(x)), -_FAR, 0)
    return math.sqrt(disagreement / (2 * n)) * (above - below)


def mcnemar(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> float:
    """The two-sided mid-p value of McNemar's exact test (1947) that a and b err equally often.

    The exact binomial test counts all of the probability of what was observed, mid-p half of it (Lancaster 1961). The
    exact test errs less often than it says, which costs power; Fagerland, Lydersen and Laake (2013, BMC Medical
    Research Methodology 13:91) recommend mid-p for any number of images. It takes what :func:`paired_bootstrap` does.

    Raises:
        ValueError: the arrays are empty, or are not of one length.
    """
    from scipy.stats import binom

    wins, losses, _ = _discordant(correct_a, correct_b)
    fewer, differing = min(wins, losses), wins + losses
    return min(1.0, float(2 * binom.cdf(fewer, differing, 0.5) - binom.pmf(fewer, differing, 0.5)))


def _discordant(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"paired answers must be two arrays [N] of one length N > 0, not {a.shape} and {b.shape}")
    return int((a & ~b).sum()), int((b & ~a).sum()), a.size
