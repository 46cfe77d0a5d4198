"""How long a file takes for one image: onnxruntime on the CPU, one thread, batch 1."""

import time
from pathlib import Path

import numpy as np

from components.core import exporting
from components.core.exporting import Pixels

_WARM_UP_SHARE = 0.1
_WARM_UP_MIN = 10


def latency(path: Path, pixels: Pixels, runs: int) -> dict[str, float]:
    """Time an ONNX file on one image after the other, after a warm-up.

    Args:
        path: the file.
        pixels: [N, C, H, W], the images to take in turn.
        runs: how many runs to time.

    Returns:
        Median and 95th percentile in milliseconds: ``latency_ms_p50``, ``latency_ms_p95``.
    """
    session = exporting.session(path, threads=1)
    images = [pixels[row : row + 1] for row in range(len(pixels))]
    warm_up = max(_WARM_UP_MIN, round(_WARM_UP_SHARE * runs))
    seconds = np.empty(warm_up + runs)
    for run in range(warm_up + runs):
        began = time.perf_counter()
        exporting.run(session, images[run % len(images)])
        seconds[run] = time.perf_counter() - began
    median, late = np.percentile(seconds[warm_up:], [50, 95]) * 1000
    return {"latency_ms_p50": float(median), "latency_ms_p95": float(late)}
