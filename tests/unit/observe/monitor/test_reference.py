import numpy as np
import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.shift import Sample, compare, statistics
from reflux.components.observe.monitor import reference


def test_equal_pixels_are_equal_after_a_round_through_the_reference(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 1), np.uint8)
    counts, confidence = np.arange(10, 20), np.linspace(0.1, 1, 500)
    made = Sample(tuple("abcdefghij"), images.shape[1:], counts, statistics(images), counts, confidence)
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
