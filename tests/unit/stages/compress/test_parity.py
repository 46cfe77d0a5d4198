from contextlib import nullcontext

import numpy as np
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.compress.parity import Parity, compare, entry, require, require_int8

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 1, 4, 4), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(16, 3)).astype(np.float32)


def student(pixels):
    return (pixels.reshape(len(pixels), -1) / 255).astype(np.float32) @ WEIGHTS


def test_a_file_that_is_the_student_passes():
    parity = compare(student, PIXELS, student(PIXELS))
    assert parity.max_abs_logit_difference < 1e-5
    assert (parity.agreement, parity.disagreements, parity.n) == (1.0, 0, 9)
    require(parity, "student.onnx", 1e-3)


def test_the_largest_difference_is_measured():
    off = np.zeros((9, 3), np.float32)
    off[4, 1] = 0.25
    parity = compare(lambda pixels: student(pixels) + off[: len(pixels)], PIXELS, student(PIXELS))
    assert parity.max_abs_logit_difference == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_file_that_is_wrong_at_one_batch_size_only_is_found_out(size):
    def wrong(pixels):
        return student(pixels) + (len(pixels) == size)

    with pytest.raises(UserError, match=r"student\.pt2 is not the student: its logits differ by up to 1"):
        require(compare(wrong, PIXELS, student(PIXELS)), "student.pt2", 1e-3)


def test_fewer_images_than_the_largest_batch_are_enough():
    assert compare(student, PIXELS[:3], student(PIXELS[:3])).n == 3


def test_nan_is_no_parity():
    parity = compare(lambda pixels: student(pixels) * np.float32(np.nan), PIXELS, student(PIXELS))
    with pytest.raises(UserError, match="nan"):
        require(parity, "student.onnx", 1e9)


def test_another_prediction_is_refused_however_wide_the_bound():
    parity = compare(lambda pixels: -student(pixels), PIXELS, student(PIXELS))
    assert parity.agreement < 1
    with pytest.raises(UserError, match=f"another class on {parity.disagreements} of 9"):
        require(parity, "student.onnx", 1e9)


def test_the_entry_has_size_and_hash(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    made = entry(Parity(0.5, 0.75, 1, 4), path, "abc")
    assert made == {"max_abs_logit_difference": 0.5, "agreement": 0.75, "n": 4, "size_bytes": 5, "sha256": "abc"}


def answers(right: int, n: int = 500) -> np.ndarray:
    """Logits of two classes whose first ``right`` answers are the class 0, and all others 1."""
    return np.eye(2, dtype=np.float32)[(np.arange(n) >= right).astype(int)]


LABELS = np.zeros(500, np.int64)


@pytest.mark.parametrize(("right", "refused"), [(450, False), (440, False), (430, False), (410, True)])
def test_an_int8_file_is_refused_where_it_surely_loses_more_than_allowed(right, refused):
    sentence = rf"right on {right} of 500 .*, the fp32 file on 450: it surely loses more than"
    with pytest.raises(UserError, match=sentence) if refused else nullcontext() as caught:
        require_int8(answers(right), answers(450), LABELS, "student.pte", 0.05)
    assert (caught is not None) == refused


def test_an_int8_file_that_is_as_right_on_other_images_is_another_network():
    other = np.roll(answers(400), 80, axis=0)
    with pytest.raises(UserError, match=r"student\.pte is not the student: it predicts another class on 160 of 500"):
        require_int8(other, answers(400), LABELS, "student.pte", 0.05)


def test_an_int8_file_without_finite_logits_is_refused():
    with pytest.raises(UserError, match="not finite"):
        require_int8(answers(450) * np.float32(np.nan), answers(450), LABELS, "student.pte", 0.05)
