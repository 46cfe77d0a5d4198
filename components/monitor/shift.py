"""Whether new images are like those that a model was made from: established two-sample tests, corrected together.

This belongs to no stage: a retraining keeps a reference of its data, and a monitor tests what arrived since against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from components.core.artifacts import atomic
from components.core.contract import SPLITS
from components.core.errors import UserError
from components.core.images.shards import UNLABELED, Images, Shard, at_once, open_shard, read_dataset

STATISTICS = ("brightness", "contrast", "sharpness")
CLASS_BALANCE, PREDICTED, CONFIDENCE = "class balance", "predicted classes", "confidence"
REFERENCE = "drift/reference.npz"  # where a retraining's run in MLflow keeps it
SAMPLE = 2000
_FEWEST = 20  # images of each side below which nothing is tested
_FEWEST_EXPECTED = 5  # below it the chi-square approximation is poor (Cochran 1954)
_RESAMPLES = 9999
_BATCH = 256
_DIGITS = 4  # what is told apart: noise of the last bits must not make equal images differ

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
NO_ANSWERS: tuple[Counts, Floats] = np.zeros(0, np.int64), np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """What images look like, as far as it is compared.

    Attributes:
        classes: class names in label order.
        shape: (H, W, C) of the images.
        counts: int64 [classes], labelled images of each class.
        statistics: by name, float64 [n], of a random sample of the images.
        predicted: int64 [classes of a model], how many images that it was not trained on it takes for each.
        confidence: float64 [m], its highest probability on them.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: Counts
    statistics: Mapping[str, Floats]
    predicted: Counts
    confidence: Floats


@dataclass(frozen=True)
class Test:
    """One comparison.

    Attributes:
        name: what was compared.
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


def compare(old: Sample, new: Sample, alpha: float, seed: int = 0) -> list[Test]:
    """Test everything that both sides have enough of.

    All tests together call equal data different with a probability of ``alpha`` at most. Class balance is a chi-square
    test of homogeneity (by Monte Carlo where classes are rare), and so is that of the classes that the model predicts,
    which sees a shift of unlabelled images (BBSDh; Lipton et al. 2018, arXiv:1802.03916, and Rabanser et al. 2019,
    arXiv:1810.11953). The rest are two-sample Kolmogorov-Smirnov tests.

    Args:
        old: the reference.
        new: what arrived since.
        alpha: level of the whole check.
        seed: of the Monte Carlo test.
    """
    shares = (class_balance(old, new, seed), _same_shares(PREDICTED, old.predicted, new.predicted, seed))
    found = [test for test in shares if test is not None]
    pairs = {name: (old.statistics[name], new.statistics[name]) for name in STATISTICS}
    pairs[CONFIDENCE] = (old.confidence, new.confidence)
    found += [_kolmogorov_smirnov(name, a, b) for name, (a, b) in pairs.items() if min(len(a), len(b)) >= _FEWEST]
    return holm(found, alpha)


def class_balance(old: Sample, new: Sample, seed: int = 0) -> Test | None:
    """Pearson's chi-square test that classes have the same shares; None with too few labelled images.

    A class that one side does not know has no images there.
    """
    _, counts = labelled(old, new)
    return _same_shares(CLASS_BALANCE, *counts, seed)


def labelled(old: Sample, new: Sample) -> tuple[list[str], tuple[Counts, Counts]]:
    """The classes that either side knows, and how many labelled images each side has of them."""
    names = [*old.classes, *(name for name in new.classes if name not in old.classes)]
    known = (dict(zip(side.classes, side.counts.tolist(), strict=True)) for side in (old, new))
    ours, theirs = (np.array([counts.get(name, 0) for name in names]) for counts in known)
    return names, (ours, theirs)


def _same_shares(name: str, old: Counts, new: Counts, seed: int) -> Test | None:
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
    return Test(name, int(table[0].sum()), int(table[1].sum()), distance, p_value, p_value, False)


def _kolmogorov_smirnov(name: str, old: Floats, new: Floats) -> Test:
    from scipy.stats import ks_2samp

    found = ks_2samp(old, new)
    return Test(name, len(old), len(new), float(found.statistic), float(found.pvalue), float(found.pvalue), False)


def holm(tests: Sequence[Test], alpha: float) -> list[Test]:
    """The same tests with p-values that keep the level together (Holm 1979, Scandinavian Journal of Statistics 6)."""
    p = np.array([test.p_value for test in tests])
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [replace(test, adjusted=float(q), differs=bool(q < alpha)) for test, q in zip(tests, adjusted, strict=True)]


def sample(
    shards: Sequence[Shard], classes: Sequence[str], known: Ids, seed: int
) -> tuple[npt.NDArray[np.uint8], Counts, int]:
    """Draw from the images that are not known yet.

    Args:
        shards: the dataset's splits.
        classes: class names in label order.
        known: ids of the images that do not count.
        seed: of the draw.

    Returns:
        Up to ``SAMPLE`` images uint8 [n, H, W, C]; labelled images of each class, [classes], of all that are new; and
        how many are new.
    """
    rows = [np.flatnonzero(~np.isin(shard.ids, known)) for shard in shards]
    labels = np.concatenate([shard.labels[new] for shard, new in zip(shards, rows, strict=True)])
    counts = counted(labels[labels != UNLABELED], len(classes))
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


def statistics(images: Images | npt.NDArray[np.uint8]) -> dict[str, Floats]:
    """Brightness, contrast and sharpness of images uint8 [N, H, W, C], each float64 [N] on a 0..1 scale.

    They are the mean of the pixels, their standard deviation, and the mean step from a pixel to its neighbours.
    """
    size = at_once(images, _BATCH)
    parts = []
    for begin in range(0, len(images), size):
        pixels = np.asarray(images[begin : begin + size]).astype(np.float64).mean(axis=3) / 255
        steps = [np.abs(np.diff(pixels, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        parts.append(np.stack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), (steps[0] + steps[1]) / 2]))
    values = np.concatenate(parts, axis=1) if parts else np.zeros((len(STATISTICS), 0))
    return dict(zip(STATISTICS, values.round(_DIGITS), strict=True))


def answered(logits: npt.NDArray[np.float32]) -> tuple[Counts, Floats]:
    """From logits [N, classes]: how often each class is the likeliest, int64 [classes], and how likely, float64 [N]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return counted(logits.argmax(axis=1), logits.shape[1]), (1 / powers.sum(axis=1)).round(_DIGITS)


def counted(classes: npt.NDArray[np.integer], count: int) -> Counts:
    """How often each of ``count`` classes occurs."""
    return np.bincount(classes, minlength=count).astype(np.int64)


def reference(artifacts: Path, seed: int) -> tuple[Sample, Ids]:
    """What a pipeline run's data looks like, and the ids of all its images.

    The student's answers are those on the test split, the only images that nothing was trained on.

    Args:
        artifacts: the pipeline's output folder.
        seed: of the draw.
    """
    import pyarrow.parquet as pq

    classes, shards = opened(artifacts)
    images, counts, _ = sample(shards, classes, np.zeros(0, np.uint64), seed)
    told = pq.read_table(artifacts / "evaluate" / "predictions.parquet", columns=["onnx", "onnx_confidence"])
    predicted = counted(told["onnx"].to_numpy(), len(classes))
    confidence = told["onnx_confidence"].to_numpy().astype(np.float64).round(_DIGITS)
    found = Sample(classes, images.shape[1:], counts, statistics(images), predicted, confidence)
    return found, np.concatenate([shard.ids for shard in shards])


def opened(artifacts: Path) -> tuple[tuple[str, ...], list[Shard]]:
    """The class names and all splits of the dataset that ``ingest`` left."""
    folder = artifacts / "ingest"
    return read_dataset(folder / "dataset.json").classes, [open_shard(folder / "shards" / name) for name in SPLITS]


def save(path: Path, found: Sample, ids: Ids) -> None:
    """Keep a reference with the ids of all images that it stands for: at most eight bytes for each, and 64 KB."""
    columns: dict[str, Any] = {f"statistic.{name}": values for name, values in found.statistics.items()}
    with atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            classes=np.array(found.classes, dtype=np.str_),
            shape=np.array(found.shape),
            counts=found.counts,
            predicted=found.predicted,
            confidence=found.confidence,
            ids=ids,
            **columns,
        )


def load(path: Path) -> tuple[Sample, Ids]:
    """Read a reference.

    Raises:
        UserError: it is damaged, or none.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            found = {name: kept[f"statistic.{name}"] for name in STATISTICS}
            classes = tuple(str(name) for name in kept["classes"])
            shape = tuple(int(side) for side in kept["shape"])
            whole = Sample(classes, shape, kept["counts"], found, kept["predicted"], kept["confidence"])
            return whole, kept["ids"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is no reference of a retrain's data ({error}): retrain to keep a new one.") from None
