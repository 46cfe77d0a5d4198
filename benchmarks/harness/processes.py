"""Commands whose time and memory are measured."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

_SECONDS_BETWEEN_LOOKS = 0.02


class Usage(NamedTuple):
    """Wall and CPU seconds of a command, and its highest memory in KB."""

    wall_s: float
    cpu_s: float
    peak_kb: int


def measured(command: Sequence[str], folder: Path, memory: str, environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        memory: the field of /proc/PID/status that is watched.
        environment: its variables; by default those of this process.

    Raises:
        SystemExit: it failed; with the end of its output.
    """
    before, began, peak = getrusage(RUSAGE_CHILDREN), time.monotonic(), 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, status_kb(process.pid, memory))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        wall_s, after = time.monotonic() - began, getrusage(RUSAGE_CHILDREN)
        if process.returncode:
            output.seek(0)
            sys.exit(f"Error: {' '.join(command)} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    return Usage(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def status_kb(process: int | str, field: str) -> int:
    """A size in /proc/PID/status; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
