"""``python -m reflux.components.bench.alone FILE PIXELS.npy``: what a process that only runs a file takes, as JSON."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from reflux.components.core.contract import FORMATS
from reflux.components.core.export.network import load


def main(path: Path, pixels: Path) -> dict[str, float]:
    """Load a file, and run it once on all pixels.

    Returns:
        ``load_ms``, processor time from the file to its first logits, without the runtime's own import; and ``peak_mb``
        of the process, Python and the runtime included, in 1,048,576 bytes.
    """
    images = np.load(pixels)
    import_module(FORMATS[path.suffix].runtime)  # before the clock runs
    began = time.process_time()
    load(path, threads=1).run(images)
    load_ms = 1000 * (time.process_time() - began)
    return {"load_ms": load_ms, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The most memory that this process had; ``ru_maxrss`` would count what its parent had at the fork."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
