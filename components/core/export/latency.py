"""The time that files take on the CPU: one alone, or two in turn."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reflux.components.core.data.shards import Pixels
from reflux.components.core.export.network import load
from reflux.components.core.export.timing import LOW, WARM_UP, batch_of, in_turn

_WARM_UP_SHARE = 0.1


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
    warm_up = max(WARM_UP, round(_WARM_UP_SHARE * runs))
    seconds = np.empty(warm_up + runs)
    for run in range(warm_up + runs):
        began = time.perf_counter()
        network.run(images[run % len(images)])
        seconds[run] = time.perf_counter() - began
    median, late = np.percentile(seconds[warm_up:], [50, 95]) * 1000
    return {"latency_ms_p50": float(median), "latency_ms_p95": float(late)}


def side_by_side(first: Path, second: Path, first_pixels: Pixels, second_pixels: Pixels) -> SideBySide:
    """Time two files against each other, image by image in turn, so that what slows the machine slows both.

    It is the time of the processor, on one thread: wall time would count the waits for a core that others use, and a
    file timed against itself on a busy machine was 0.127 times as fast.

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
    return SideBySide(float(ours), float(theirs), float(ratios[LOW]))
