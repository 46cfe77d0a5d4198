"""Tests of shift: on equal data they keep their level, and real images that shifted are found."""

import gc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from reflux.components.core.data.shards import UNLABELED, Shard
from reflux.components.core.shift import (
    NO_PREDICTIONS,
    Sample,
    ShiftTest,
    class_counts,
    compare,
    holm,
    predictions,
    sample,
    statistics,
)
from reflux.components.modalities.image.pixels import decode

DATA = Path(__file__).parents[3] / "data" / "fashion-mnist"
CLASSES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def fashion() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 real test images, uint8 [N, 28, 28, 1], and their labels."""
    table = pq.read_table(DATA / "test.parquet")
    images = np.stack([decode(each["bytes"], 1, 28, 50).pixels for each in table["image"].to_pylist()])
    return images, table["label"].to_numpy()


def sample_of(
    images: np.ndarray, labels: np.ndarray, predicted=NO_PREDICTIONS[0], confidence=NO_PREDICTIONS[1]
) -> Sample:
    counts = np.bincount(labels, minlength=len(CLASSES))
    return Sample(CLASSES, images.shape[1:], counts, statistics(images), predicted, confidence)


def differing(old: Sample, new: Sample, alpha: float = 0.01) -> set[str]:
    return {test.name for test in compare(old, new, alpha) if test.differs}


@pytest.fixture
def frozen_heap():
    """Leave what is loaded to no garbage collection: statsmodels collects at each call of Holm, for half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_equal_data_is_called_different_no_more_often_than_alpha_says(fashion, frozen_heap):
    images, labels = fashion
    whole, rng = statistics(images), np.random.default_rng(0)
    confidence = rng.beta(5, 1, len(images)).round(4)
    predicted = np.where(rng.random(len(labels)) < 0.9, labels, rng.integers(0, 10, len(labels)))
    alpha, rounds, alarms = 0.05, 400, 0
    for _ in range(rounds):
        order = rng.permutation(len(images))
        sides = (order[:2000], order[2000:2500])
        old, new = (
            Sample(
                CLASSES,
                images.shape[1:],
                np.bincount(labels[side], minlength=10),
                {name: values[side] for name, values in whole.items()},
                np.bincount(predicted[side], minlength=10),
                confidence[side],
            )
            for side in sides
        )
        alarms += any(test.differs for test in compare(old, new, alpha))
    # Were the true rate alpha, more than 33 of 400 would be seen once in a thousand times.
    assert alarms <= 33
    assert alarms >= 1, "a check that never raises an alarm finds nothing"


@pytest.mark.parametrize(
    ("change", "shifted"),
    [
        (lambda x: np.clip(x.astype(int) + 25, 0, 255).astype(np.uint8), "brightness"),
        (lambda x: (x * 0.75).astype(np.uint8), "contrast"),
        (lambda x: ((x.astype(int) + np.roll(x, 1, 1) + np.roll(x, 1, 2)) // 3).astype(np.uint8), "sharpness"),
    ],
)
def test_images_that_shifted_are_found(fashion, change, shifted):
    images, labels = fashion
    old, new = sample_of(images[:2000], labels[:2000]), sample_of(change(images[2000:2200]), labels[2000:2200])
    assert shifted in differing(old, new)


def test_a_class_that_became_frequent_is_found_and_the_same_mix_is_not(fashion):
    images, labels = fashion
    old = sample_of(images[:2000], labels[:2000])
    more = np.flatnonzero((labels == 3) | (np.arange(len(labels)) % 4 == 0))[-300:]
    assert "class balance" in differing(old, sample_of(images[more], labels[more]))
    assert "class balance" not in differing(old, sample_of(images[2000:2300], labels[2000:2300]))


def test_a_class_that_the_champion_never_saw_is_found_by_monte_carlo(fashion):
    images, labels = fashion
    old, new = sample_of(images[:2000], labels[:2000]), sample_of(images[2000:2100], labels[2000:2100])
    more = Sample((*CLASSES, "new"), new.shape, np.append(new.counts, 8), new.statistics, *NO_PREDICTIONS)
    assert "class balance" in differing(old, more)


def test_a_model_that_became_unsure_is_found():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (300, 8, 8, 1), np.uint8), rng.integers(0, 10, 300)
    old = sample_of(images, labels, confidence=rng.beta(8, 1, 2000))
    assert differing(old, sample_of(images, labels, confidence=rng.beta(4, 1, 300))) == {"confidence"}
    assert differing(old, sample_of(images, labels, confidence=rng.beta(8, 1, 300))) == set()


def test_other_unlabelled_images_are_found_by_what_the_champion_takes_them_for(fashion):
    images, labels = fashion
    unlabeled = labels[:0]

    def seen(rows: np.ndarray) -> Sample:
        logits = np.eye(10, dtype=np.float32)[labels[rows]] * 8
        return Sample(
            CLASSES, images.shape[1:], class_counts(unlabeled, 10), statistics(images[rows]), *predictions(logits)
        )

    old, rows = seen(np.arange(2000)), np.arange(2000, 5000)
    assert "predicted classes" in differing(old, seen(rows[labels[rows] < 5][:200]))
    assert differing(old, seen(rows[:200])) == set()


def test_too_few_images_are_not_tested(fashion):
    images, labels = fashion
    assert compare(sample_of(images[:2000], labels[:2000]), sample_of(images[:19], labels[:19]), 0.01) == []


def test_holm_is_stricter_than_each_test_alone():
    tests = [ShiftTest(name, 9, 9, 0.0, p, p, False) for name, p in (("a", 0.04), ("b", 0.01), ("c", 0.03))]
    corrected = holm(tests, 0.05)
    assert [round(test.adjusted, 10) for test in corrected] == [0.06, 0.03, 0.06]
    assert [test.differs for test in corrected] == [False, True, False]
    assert holm([], 0.05) == []


def test_only_images_that_are_not_known_are_drawn():
    def shard(first: int, count: int, labels: list[int]) -> Shard:
        ids = np.arange(first, first + count, dtype=np.uint64)
        images = np.repeat(ids.astype(np.uint8), 4).reshape(count, 2, 2, 1)
        return Shard(images, np.array(labels), ids)

    shards = [shard(0, 4, [0, 1, 1, 0]), shard(10, 3, [UNLABELED] * 3)]
    images, counts, total = sample(shards, ("a", "b"), np.array([0, 2, 11], np.uint64), seed=0)
    assert sorted(images[:, 0, 0, 0]) == [1, 3, 10, 12]
    assert counts.tolist() == [1, 1]
    assert total == 4
    nothing, counts, total = sample(shards, ("a", "b"), np.arange(20, dtype=np.uint64), seed=0)
    assert (nothing.shape, counts.tolist(), total) == ((0, 2, 2, 1), [0, 0], 0)


def test_predictions_are_counted_with_their_probability():
    counts, confidence = predictions(np.array([[0, np.log(3)], [np.log(3), 0], [5000, 0]], np.float32))
    assert counts.tolist() == [2, 1]
    assert confidence.tolist() == [0.75, 0.75, 1.0]
