"""This machine: times that were measured on another one say little here."""

import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Host name, processor, usable cores and GPUs of this machine, found without importing torch."""
    gpus = sorted(path.name for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    return ", ".join([platform.node(), processor(), f"{usable_cores()} cores", *gpus])


def usable_cores() -> int:
    """The cores this process may use, which a container or taskset can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name, or its architecture where the system does not name it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names, platform.processor(), platform.machine()]), "an unknown CPU")
