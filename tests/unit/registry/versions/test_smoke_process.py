import numpy as np
import pytest

from components.registry.versions.smoke_process import Failed, compare

PIXELS = np.zeros((3, 1, 2, 2), np.uint8)
PREDICTED = np.array([0, 1, 1])


def logits(rows: int) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[PREDICTED][:rows]


def test_a_near_tie_is_no_other_class():
    compare(
        lambda batch: np.full((len(batch), 2), 0.5, np.float32) + 1e-5 * logits(len(batch))[:, ::-1], PIXELS, PREDICTED
    )


@pytest.mark.parametrize(
    ("predict", "problem"),
    [
        (lambda batch: logits(len(batch))[:, :1], "gets an answer of shape"),
        (lambda batch: logits(len(batch)) * np.nan, "gets logits that are not finite"),
        (lambda batch: logits(len(batch))[:, ::-1], "a batch of 3 gets 3 other classes"),
    ],
)
def test_a_wrong_output_is_named(predict, problem):
    with pytest.raises(Failed, match=problem):
        compare(predict, PIXELS, PREDICTED)
