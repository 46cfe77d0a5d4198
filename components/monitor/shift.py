"""Tests whether new images are like the champion's: established two-sample tests, corrected together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.monitor.reference import STATISTICS, Counts, Floats, Sample

CLASS_BALANCE, PREDICTED, CONFIDENCE = "class balance", "predicted classes", "confidence"
_FEWEST = 20  # images of each side below which nothing is tested
_FEWEST_EXPECTED = 5  # below it the chi-square approximation is poor (Cochran 1954)
_RESAMPLES = 9999


@dataclass(frozen=True)
class ShiftTest:
    """One comparison of old and new images.

    Attributes:
        old: how many images of the reference took part.
        new: how many new ones.
        distance: the largest difference of the distribution functions, or of a class's share.
        p_value: of the test alone.
        adjusted: by Holm (1979), with all tests of the check.
        differs: whether the adjusted p-value is below the level.
    """

    name: str
    old: int
    new: int
    distance: float
    p_value: float
    adjusted: float
    differs: bool


def compare(old: Sample, new: Sample, alpha: float, seed: int = 0) -> list[ShiftTest]:
    """Test everything that both sides have enough of.

    All tests together call equal data different with a probability of ``alpha`` at most. Class balance is a chi-square
    test of homogeneity (by Monte Carlo where classes are rare), and so is that of the classes that the model predicts,
    which sees a shift of unlabeled images (BBSDh; Lipton et al. 2018, arXiv:1802.03916, and Rabanser et al. 2019,
    arXiv:1810.11953). The rest are two-sample Kolmogorov-Smirnov tests.
    """
    shares = (class_balance(old, new, seed), _same_shares(PREDICTED, old.predicted, new.predicted, seed))
    tests = [test for test in shares if test is not None]
    pairs = {name: (old.statistics[name], new.statistics[name]) for name in STATISTICS}
    pairs[CONFIDENCE] = (old.confidence, new.confidence)
    tests += [_kolmogorov_smirnov(name, a, b) for name, (a, b) in pairs.items() if min(len(a), len(b)) >= _FEWEST]
    return holm(tests, alpha)


def class_balance(old: Sample, new: Sample, seed: int = 0) -> ShiftTest | None:
    """Pearson's chi-square test that classes have the same shares; None with too few labeled images.

    A class that one side does not have has no images there.
    """
    _, counts = labeled_counts(old, new)
    return _same_shares(CLASS_BALANCE, *counts, seed)


def labeled_counts(old: Sample, new: Sample) -> tuple[list[str], tuple[Counts, Counts]]:
    """The classes that either side has, and how many labeled images each side has of them."""
    names = [*old.classes, *(name for name in new.classes if name not in old.classes)]
    known = (dict(zip(side.classes, side.counts.tolist(), strict=True)) for side in (old, new))
    old_counts, new_counts = (np.array([counts.get(name, 0) for name in names]) for counts in known)
    return names, (old_counts, new_counts)


def _same_shares(name: str, old: Counts, new: Counts, seed: int) -> ShiftTest | None:
    from scipy.stats import MonteCarloMethod, chi2_contingency

    if min(old.sum(), new.sum()) < _FEWEST:
        return None
    table = np.stack([old, new])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    rare = expected.min() < _FEWEST_EXPECTED
    method = MonteCarloMethod(_RESAMPLES, rng=np.random.default_rng(seed)) if rare else None
    p_value = float(chi2_contingency(table, correction=False, method=method).pvalue)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).max())
    return ShiftTest(name, int(table[0].sum()), int(table[1].sum()), distance, p_value, p_value, False)


def _kolmogorov_smirnov(name: str, old: Floats, new: Floats) -> ShiftTest:
    from scipy.stats import ks_2samp

    statistic, p_value = map(float, ks_2samp(old, new))
    return ShiftTest(name, len(old), len(new), statistic, p_value, p_value, False)


def holm(tests: Sequence[ShiftTest], alpha: float) -> list[ShiftTest]:
    """Adjust the p-values so that all tests together keep the level (Holm 1979, Scand. J. Statist. 6)."""
    from statsmodels.stats.multitest import multipletests

    if not tests:
        return []
    adjusted = multipletests([test.p_value for test in tests], method="holm")[1]
    return [replace(test, adjusted=float(q), differs=bool(q < alpha)) for test, q in zip(tests, adjusted, strict=True)]
