import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from reflux.components.registry.versions import smoke_process
from reflux.components.registry.versions.smoke_process import Failed, compare, latency

PIXELS = np.zeros((3, 1, 2, 2), np.uint8)
PREDICTED = np.array([0, 1, 1])


def logits(rows: int) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[PREDICTED][:rows]


def test_a_near_tie_is_no_other_class():
    tied = np.full((2,), 0.5, np.float32)
    compare(lambda batch: tied + 1e-5 * logits(len(batch))[:, ::-1], PIXELS, PREDICTED)
    with pytest.raises(Failed, match="3 other classes"):
        compare(lambda batch: tied + 0.1 * logits(len(batch))[:, ::-1], PIXELS, PREDICTED)


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


@pytest.fixture
def time_of(monkeypatch):
    """Measures the latency of runs of these seconds each, a round of them after the warm-up and so on."""

    def measure(*rounds: float, maximum: float | None) -> float:
        now = 0.0
        warm_up = itertools.repeat(0.5, smoke_process._WARM_UP)
        durations = itertools.chain(warm_up, *(itertools.repeat(each, smoke_process._RUNS) for each in rounds))

        def run(_):
            nonlocal now
            now += next(durations)

        monkeypatch.setattr(smoke_process, "time", SimpleNamespace(perf_counter=lambda: now))
        return latency(run, PIXELS, maximum)

    return measure


def test_latency_is_in_milliseconds_and_may_equal_the_maximum(time_of):
    assert time_of(0.002, maximum=None) == pytest.approx(2)
    assert time_of(0.25, maximum=250.0) == 250
    with pytest.raises(Failed, match="one image takes 2 ms at p95, and the maximum is 1 ms"):
        time_of(0.002, 0.002, 0.002, maximum=1.0)


def test_one_slow_round_does_not_fail_a_fast_file(time_of):
    assert time_of(0.009, 0.002, maximum=3.0) == pytest.approx(2)
