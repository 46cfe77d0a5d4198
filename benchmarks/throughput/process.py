"""The process of one arm of ``benchmarks.throughput``.

It trains only when it is told to: it writes ``{"loss": …}`` once it is ready, and answers each number of steps on its
stdin with ``{"seconds": …, "peak_mb": …}``. So arms can take turns on a machine, and torchdistill, whose setup changes
a class for good, is alone in its process.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.throughput.ours import bare, fill, live, store
from benchmarks.throughput.peers import plain, timm, torchdistill, torchdistill_cached
from benchmarks.throughput.setting import Clock, Setting
from reflux.components.core.data.shards import open_shard

ARMS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (bare, store, live, torchdistill, torchdistill_cached, timm, plain, fill)
}


def main() -> None:
    """Train as the first argument describes."""
    description = json.loads(sys.argv[1])
    # What libraries print must not be taken for a report.
    reports, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    setting = Setting(**description["setting"])
    torch.set_num_threads(setting.threads)
    images = open_shard(Path(setting.folder) / "images")
    ARMS[description["kind"]](setting, Clock(reports), images, **description["switches"])


if __name__ == "__main__":
    main()
