import numpy as np
import pytest

from reflux.components.stages.evaluate import probe


@pytest.mark.parametrize(
    ("labels", "count", "rows"),
    [
        ([0, 0, 0, 1, 1, 2], 4, [0, 3, 5, 1]),
        ([2, 2, 0], 64, [0, 2, 1]),
        ([1], 1, [0]),
        ([], 3, []),
    ],
)
def test_the_classes_take_turns(labels, count, rows):
    assert probe.spread(np.array(labels, np.int64), count).tolist() == rows


def test_many_classes_have_an_image_each_at_most():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 5))
    chosen = labels[probe.spread(labels, 64)]
    assert len(set(chosen.tolist())) == 64


def test_an_image_whose_answer_is_a_toss_up_is_left_out():
    logits = np.array([[1.0, 1.00005, 0], [0, 1, 2], [3, 0, 1], [2, 2, 2]], np.float32)
    assert probe.choose(np.array([0, 0, 1, 1]), logits).tolist() == [1, 2]


def test_what_is_written_is_read_without_pickle(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    logits = np.eye(4, dtype=np.float32)[[3, 1, 0, 2, 2]]
    probe.write(tmp_path / "probe.npz", pixels, logits)
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as kept:
        assert sorted(kept) == ["pixels", "predicted"]
        assert np.array_equal(kept["pixels"], pixels)
        assert kept["predicted"].tolist() == [3, 1, 0, 2, 2]
        assert kept["predicted"].dtype == np.int64
    assert [file.name for file in tmp_path.iterdir()] == ["probe.npz"]


@pytest.mark.parametrize("channels", [1, 3])
def test_patterns_are_the_same_each_time_and_differ_from_each_other(channels):
    made = probe.patterns(channels, 16)
    assert (made.shape, made.dtype) == ((512, channels, 16, 16), np.uint8)
    assert np.array_equal(made, probe.patterns(channels, 16))
    assert len({image.tobytes() for image in made}) > 450


def test_of_the_patterns_as_many_of_each_answer_are_kept():
    def bright(pixels):
        means = pixels.mean(axis=(1, 2, 3), dtype=np.float32)
        return np.stack([100 - means, means - 100, np.full(len(pixels), -300, np.float32)], axis=1)

    pixels, logits = probe.of_patterns(bright, 1, 12)
    assert (len(pixels), logits.shape) == (64, (64, 3))
    assert np.array_equal(logits, bright(pixels))
    assert np.bincount(logits.argmax(axis=1)).tolist() == [32, 32]
