import numpy as np
import pytest

from components.core.errors import UserError
from components.core.images.shards import UNLABELED, Shard
from components.monitor import reference
from components.monitor.reference import Sample
from components.monitor.shift import compare


def test_equal_pixels_are_equal_after_a_round_through_the_reference(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 1), np.uint8)
    counts, confidence = np.arange(10, 20), np.linspace(0.1, 1, 500)
    made = Sample(tuple("abcdefghij"), images.shape[1:], counts, reference.statistics(images), counts, confidence)
    reference.save(tmp_path / "reference.npz", made, np.arange(500, dtype=np.uint64))
    kept, ids = reference.load(tmp_path / "reference.npz")
    assert (kept.classes, kept.shape) == (made.classes, made.shape)
    assert ids.tolist() == list(range(500))
    assert {test.name for test in compare(kept, made, 0.01)} >= {"predicted classes", "confidence"}
    assert all(test.p_value == 1 for test in compare(kept, made, 0.01))


def test_a_damaged_reference_is_one_sentence(tmp_path):
    (tmp_path / "reference.npz").write_bytes(b"PK\x03\x04 no more of it")
    with pytest.raises(UserError, match="is no reference of a retrain's data"):
        reference.load(tmp_path / "reference.npz")


def test_only_images_that_are_not_known_are_drawn():
    def shard(first: int, count: int, labels: list[int]) -> Shard:
        ids = np.arange(first, first + count, dtype=np.uint64)
        images = np.repeat(ids.astype(np.uint8), 4).reshape(count, 2, 2, 1)
        return Shard(images, np.array(labels), ids)

    shards = [shard(0, 4, [0, 1, 1, 0]), shard(10, 3, [UNLABELED] * 3)]
    images, counts, total = reference.sample(shards, ("a", "b"), np.array([0, 2, 11], np.uint64), seed=0)
    assert sorted(images[:, 0, 0, 0]) == [1, 3, 10, 12]
    assert counts.tolist() == [1, 1]
    assert total == 4
    nothing, counts, total = reference.sample(shards, ("a", "b"), np.arange(20, dtype=np.uint64), seed=0)
    assert (nothing.shape, counts.tolist(), total) == ((0, 2, 2, 1), [0, 0], 0)


def test_predictions_are_counted_with_their_probability():
    counts, confidence = reference.predictions(np.array([[0, np.log(3)], [np.log(3), 0], [5000, 0]], np.float32))
    assert counts.tolist() == [2, 1]
    assert confidence.tolist() == [0.75, 0.75, 1.0]
