"""Tests whether images are like others: established two-sample tests, corrected together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reflux.components.core.data.shards import UNLABELED, Images, Pixels, Shard, at_once

STATISTICS = ("brightness", "contrast", "sharpness")
SAMPLE = 2000
_BATCH = 256
DIGITS = 4  # noise of the last bits must not make equal images differ
CLASS_BALANCE, PREDICTED, CONFIDENCE = "class balance", "predicted classes", "confidence"
_FEWEST = 20  # images of each side below which nothing is tested
_FEWEST_EXPECTED = 5  # below it the chi-square approximation is poor (Cochran 1954)
_RESAMPLES = 9999

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
NO_PREDICTIONS: tuple[Counts, Floats] = np.zeros(0, np.int64), np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """The figures of some images that are compared.

    Attributes:
        classes: class names in label order.
        shape: (H, W, C) of the images.
        counts: int64 [classes], labeled images of each class.
        statistics: by name, float64 [n], of a random sample of the images.
        predicted: int64 [classes of a model], how often it predicts each on images that it was not trained on.
        confidence: float64 [m], the probability of each of these predictions.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: Counts
    statistics: Mapping[str, Floats]
    predicted: Counts
    confidence: Floats


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


def sample(shards: Sequence[Shard], classes: Sequence[str], known: Ids, seed: int) -> tuple[Pixels, Counts, int]:
    """Draw from the images that are new, which are those whose ids are not ``known``.

    Returns:
        Up to ``SAMPLE`` new images, uint8 [n, H, W, C]; how many labeled new images each class has, [classes]; and how
        many images are new.
    """
    rows = [np.flatnonzero(~np.isin(shard.ids, known)) for shard in shards]
    labels = np.concatenate([shard.labels[new] for shard, new in zip(shards, rows, strict=True)])
    counts = class_counts(labels[labels != UNLABELED], len(classes))
    total = sum(len(new) for new in rows)
    drawn = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    parts, begin = [], 0
    for shard, new in zip(shards, rows, strict=True):
        here = drawn[(drawn >= begin) & (drawn < begin + len(new))] - begin
        if len(here):
            parts.append(np.asarray(shard.images[new[here]]))
        begin += len(new)
    shape = shards[0].images.shape[1:]
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.uint8), counts, total


def statistics(images: Images | Pixels) -> dict[str, Floats]:
    """Brightness, contrast and sharpness of images uint8 [N, H, W, C], each float64 [N] on a 0..1 scale.

    They are the mean of the pixels, their standard deviation, and the mean step from a pixel to its neighbors.
    """
    size = at_once(images, _BATCH)
    parts = []
    for begin in range(0, len(images), size):
        pixels = np.asarray(images[begin : begin + size]).astype(np.float64).mean(axis=3) / 255
        steps = [np.abs(np.diff(pixels, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        parts.append(np.stack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), (steps[0] + steps[1]) / 2]))
    values = np.concatenate(parts, axis=1) if parts else np.zeros((len(STATISTICS), 0))
    return dict(zip(STATISTICS, values.round(DIGITS), strict=True))


def predictions(logits: npt.NDArray[np.float32]) -> tuple[Counts, Floats]:
    """From logits [N, classes]: how often each class is predicted, int64 [classes], and how surely, float64 [N]."""
    from scipy.special import softmax

    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    return class_counts(logits.argmax(axis=1), logits.shape[1]), confidence.round(DIGITS)


def class_counts(labels: npt.NDArray[np.integer], classes: int) -> Counts:
    """How often each of so many classes occurs."""
    return np.bincount(labels, minlength=classes).astype(np.int64)
