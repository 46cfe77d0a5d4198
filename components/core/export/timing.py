"""Functions timed in turn. It needs NumPy alone: ``reflux bench --export`` gives devices a copy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from reflux.components.core.data.shards import Pixels

WARM_UP = 10
ROUNDS, RUNS = 15, 40
LOW = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Turns:
    """Seconds of runs that took turns, each [rounds, runs, files].

    Attributes:
        wall: what a user waits.
        cpu: of the processor, without the waits for a core that others use.
    """

    wall: Floats
    cpu: Floats

    def ratio(self, file: int, to: int) -> tuple[float, float, float]:
        """A file's processor time in multiples of another's: the median of the rounds, and its interval.

        The fourth lowest and the fourth highest of 15 rounds enclose the true median with a probability of 96.5 % (sign
        test: 1 - 2 * 576 / 32,768), whatever the distribution.
        """
        typical = np.median(self.cpu, axis=1)
        ratios = np.sort(typical[:, file] / typical[:, to])
        return float(np.median(ratios)), float(ratios[LOW]), float(ratios[-1 - LOW])


def in_turn(runs: Sequence[Callable[[int], object]], repeats: int = RUNS, block: int = 1, threads: int = 1) -> Turns:
    """Time functions in turn, in 15 rounds after a warm-up, so that what slows the machine slows all.

    Args:
        runs: each takes the number of the run.
        repeats: of each function in a round.
        block: runs of one function before the next one's turn; with 1, each finds the caches full of the others' data.
        threads: that they compute with; of one, other threads of the process are not counted.
    """
    clock, order = time.thread_time if threads == 1 else time.process_time, np.random.default_rng(0)
    warm_up = block * -(-WARM_UP // block)
    wall = np.empty((warm_up + ROUNDS * repeats, len(runs)))
    cpu = np.empty_like(wall)
    for begin in range(0, len(wall), block):
        for file in order.permutation(len(runs)):
            for run in range(begin, min(begin + block, len(wall))):
                began, busy = time.perf_counter(), clock()
                runs[file](run)
                cpu[run, file], wall[run, file] = clock() - busy, time.perf_counter() - began
    shape = (ROUNDS, repeats, len(runs))
    return Turns(wall[warm_up:].reshape(shape), cpu[warm_up:].reshape(shape))


def batch_of(run: "Callable[[Pixels], object]", pixels: "Pixels", batch: int = 1) -> Callable[[int], object]:
    """A function for :func:`in_turn` that runs ``batch`` of the images [N, C, H, W], which take turns, too."""
    batches = [pixels[row : row + batch] for row in range(0, len(pixels) - batch + 1, batch)]
    return lambda number: run(batches[number % len(batches)])
