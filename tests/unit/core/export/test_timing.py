import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from reflux.components.core.export import timing
from reflux.components.core.export.timing import batch_of, in_turn


def test_processor_time_is_a_multiple_of_anothers_with_an_interval_that_few_disturbed_rounds_do_not_widen(monkeypatch):
    now = 0.0

    def taking(*seconds):
        durations = itertools.cycle(seconds)

        def run(_):
            nonlocal now
            now += next(durations)

        return run

    clock = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now)
    monkeypatch.setattr(timing, "time", clock)
    one = taking(0.002)
    turns = in_turn([one, taking(*[0.006] * 600, *[0.06] * 3 * 40)])
    assert turns.wall.shape == turns.cpu.shape == (15, 40, 2)
    assert turns.ratio(0, 0) == (1, 1, 1)
    assert turns.ratio(1, 0) == pytest.approx((3, 3, 3))
    assert in_turn([one, taking(*[0.006] * 40, *[0.012] * 40)]).ratio(1, 0) == pytest.approx((3, 3, 6))


def test_a_block_of_runs_is_one_turn():
    calls = []
    in_turn([lambda run, name=name: calls.append((name, run)) for name in "ab"], repeats=4, block=4)
    turns = [calls[begin : begin + 4] for begin in range(0, len(calls), 4)]
    assert all(len({name for name, _ in turn}) == 1 for turn in turns)
    for name in "ab":
        assert [run for each, run in calls if each == name] == [*range(72)]


def test_batches_of_images_take_turns():
    images = np.arange(7)[:, None]
    seen = []
    run = batch_of(lambda batch: seen.append(batch.ravel().tolist()), images, 2)
    for number in range(4):
        run(number)
    assert seen == [[0, 1], [2, 3], [4, 5], [0, 1]]
