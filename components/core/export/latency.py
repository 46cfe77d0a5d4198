"""The time that files take on the CPU: alone, or in turn with others."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.core.export.network import load
from reflux.components.core.images.shards import Pixels

_WARM_UP_SHARE = 0.1
_WARM_UP_MIN = 10
ROUNDS, RUNS = 15, 40
_LOW = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SideBySide:
    """Two files timed in turn; the 95th percentiles are in ms of the processor, each the median over the rounds."""

    first_ms_p95: float
    second_ms_p95: float
    faster: float  # how many times faster the first is, at least: the fourth lowest of 15 rounds' ratios


def latency(path: Path, pixels: Pixels, runs: int) -> dict[str, float]:
    """Time ``runs`` of a file on one thread, after a warm-up, each on one of the images [N, C, H, W] in turn.

    Returns:
        Median and 95th percentile in milliseconds: ``latency_ms_p50``, ``latency_ms_p95``.
    """
    network = load(path, threads=1)
    images = [pixels[row : row + 1] for row in range(len(pixels))]
    warm_up = max(_WARM_UP_MIN, round(_WARM_UP_SHARE * runs))
    seconds = np.empty(warm_up + runs)
    for run in range(warm_up + runs):
        began = time.perf_counter()
        network.run(images[run % len(images)])
        seconds[run] = time.perf_counter() - began
    median, late = np.percentile(seconds[warm_up:], [50, 95]) * 1000
    return {"latency_ms_p50": float(median), "latency_ms_p95": float(late)}


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
        return float(np.median(ratios)), float(ratios[_LOW]), float(ratios[-1 - _LOW])


def in_turn(runs: Sequence[Callable[[int], object]], repeats: int = RUNS, block: int = 1, threads: int = 1) -> Turns:
    """Time functions in turn, in 15 rounds after a warm-up, so that what slows the machine slows all.

    Args:
        runs: each takes the number of the run.
        repeats: of each function in a round.
        block: runs of one function before the next one's turn; with 1, each finds the caches full of the others' data.
        threads: that they compute with; of one, other threads of the process are not counted.
    """
    clock, order = time.thread_time if threads == 1 else time.process_time, np.random.default_rng(0)
    warm_up = block * -(-_WARM_UP_MIN // block)
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


def batch_of(run: Callable[[Pixels], object], pixels: Pixels, batch: int = 1) -> Callable[[int], object]:
    """A function for :func:`in_turn` that runs ``batch`` of the images [N, C, H, W], which take turns, too."""
    batches = [pixels[row : row + batch] for row in range(0, len(pixels) - batch + 1, batch)]
    return lambda number: run(batches[number % len(batches)])


def side_by_side(first: Path, second: Path, first_pixels: Pixels, second_pixels: Pixels) -> SideBySide:
    """Time two files against each other, image by image in turn, so that what slows the machine slows both.

    It is the time of the processor, on one thread: wall time would count the waits for a core that others use, and a
    file timed against itself on a busy machine was 0.127 times as fast (issue 14).

    Each of 15 rounds gives one ratio of 95th percentiles. The fourth lowest is above the median of such ratios with a
    probability of 1.8 % (sign test: at most three of 15 below the median, 576 / 32,768), whatever their distribution,
    and three disturbed rounds do not hide a file that is faster. The pixels are the same images [N, C, H, W] as either
    file takes them.
    """
    pairs = ((first, first_pixels), (second, second_pixels))
    turns = in_turn([batch_of(load(path, threads=1).run, pixels) for path, pixels in pairs])
    late = np.percentile(turns.cpu, 95, axis=1) * 1000
    ratios = np.sort(late[:, 1] / late[:, 0])
    ours, theirs = np.median(late, axis=0)
    return SideBySide(float(ours), float(theirs), float(ratios[_LOW]))
