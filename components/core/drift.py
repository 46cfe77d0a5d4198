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
from components.core.errors import UserError
from components.core.shards import UNLABELED, Images, Shard, at_once, open_shard, read_dataset

STATISTICS = ("brightness", "contrast", "sharpness")
CLASS_BALANCE, CONFIDENCE = "class balance", "confidence"
REFERENCE = "drift/reference.npz"  # where a retraining's run in MLflow keeps it
SAMPLE = 2000
_SPLITS = ("train", "val", "test", "unlabeled")
_FEWEST = 20  # images of each side below which nothing is tested
_FEWEST_EXPECTED = 5  # below it the chi-square approximation is poor (Cochran 1954)
_RESAMPLES = 9999
_BATCH = 256
_DIGITS = 4  # what is told apart: noise of the last bits must not make equal images differ

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.uint64]
NONE: Floats = np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """What images look like, as far as it is compared.

    Attributes:
        classes: class names in label order.
        shape: (H, W, C) of the images.
        counts: int64 [classes], labelled images of each class.
        statistics: by name, float64 [n], of a random sample of the images.
        confidence: float64 [m], a model's highest probability on images that it was not trained on.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: npt.NDArray[np.int64]
    statistics: Mapping[str, Floats]
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
    test of homogeneity (by Monte Carlo where classes are rare), the rest are two-sample Kolmogorov-Smirnov tests.

    Args:
        old: the reference.
        new: what arrived since.
        alpha: level of the whole check.
        seed: of the Monte Carlo test.
    """
    found = [] if (balance := class_balance(old, new, seed)) is None else [balance]
    pairs = {name: (old.statistics[name], new.statistics[name]) for name in STATISTICS}
    pairs[CONFIDENCE] = (old.confidence, new.confidence)
    found += [_kolmogorov_smirnov(name, a, b) for name, (a, b) in pairs.items() if min(len(a), len(b)) >= _FEWEST]
    return holm(found, alpha)


def class_balance(old: Sample, new: Sample, seed: int = 0) -> Test | None:
    """Pearson's chi-square test that classes have the same shares; None with too few labelled images.

    A class that one side does not know has no images there.
    """
    from scipy.stats import MonteCarloMethod, chi2_contingency

    names = [*old.classes, *(name for name in new.classes if name not in old.classes)]
    table = np.array([[dict(zip(s.classes, s.counts, strict=True)).get(n, 0) for n in names] for s in (old, new)])
    table = table[:, table.sum(axis=0) > 0]
    if table.sum(axis=1).min() < _FEWEST or table.shape[1] < 2:
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    rare = expected.min() < _FEWEST_EXPECTED
    method = MonteCarloMethod(_RESAMPLES, rng=np.random.default_rng(seed)) if rare else None
    p_value = float(chi2_contingency(table, correction=False, method=method).pvalue)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).max())
    return Test(CLASS_BALANCE, int(table[0].sum()), int(table[1].sum()), distance, p_value, p_value, False)


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
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], int]:
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
    counts = np.bincount(labels[labels != UNLABELED], minlength=len(classes)).astype(np.int64)
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


def confidences(logits: npt.NDArray[np.float32]) -> Floats:
    """The highest probability, float64 [N], of logits [N, classes]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (1 / powers.sum(axis=1)).round(_DIGITS)


def reference(artifacts: Path, seed: int) -> tuple[Sample, Ids]:
    """What a pipeline run's data looks like, and the ids of all its images.

    The student's confidence is that on the test split, the only images that nothing was trained on.

    Args:
        artifacts: the pipeline's output folder.
        seed: of the draw.
    """
    import pyarrow.parquet as pq

    classes, shards = opened(artifacts)
    images, counts, _ = sample(shards, classes, np.zeros(0, np.uint64), seed)
    told = pq.read_table(artifacts / "evaluate" / "predictions.parquet", columns=["onnx_confidence"])
    confidence = told["onnx_confidence"].to_numpy().astype(np.float64).round(_DIGITS)
    found = Sample(classes, images.shape[1:], counts, statistics(images), confidence)
    return found, np.concatenate([shard.ids for shard in shards])


def opened(artifacts: Path) -> tuple[tuple[str, ...], list[Shard]]:
    """The class names and all splits of the dataset that ``ingest`` left."""
    folder = artifacts / "ingest"
    return read_dataset(folder / "dataset.json").classes, [open_shard(folder / "shards" / name) for name in _SPLITS]


def save(path: Path, found: Sample, ids: Ids) -> None:
    """Keep a reference with the ids of all images that it stands for: at most eight bytes for each, and 64 KB."""
    columns: dict[str, Any] = {f"statistic.{name}": values for name, values in found.statistics.items()}
    with atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            classes=np.array(found.classes, dtype=np.str_),
            shape=np.array(found.shape),
            counts=found.counts,
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
            return Sample(classes, shape, kept["counts"], found, kept["confidence"]), kept["ids"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is no reference of a retrain's data ({error}): retrain to keep a new one.") from None
