"""A local stack for a benchmark, and the CPU and memory of its servers."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.harness.results import ROOT
from infra.local import supervisor
from infra.local.settings import Stack, known_stack

SERVERS = ("postgres", "s3", "mlflow", "prefect")
_SECONDS_BETWEEN_LOOKS = 5.0


@contextmanager
def local_stack() -> Iterator[Stack]:
    """Start a stack of its own; the environment makes this process and its children clients of it."""
    home = Path(tempfile.mkdtemp(prefix="reflux-stack-"))
    home.chmod(0o711)  # Postgres may run as another user
    commands = ROOT / "infra" / "local"
    try:
        subprocess.run([commands / "up", "--state", home / "state"], check=True)
        stack = known_stack(home / "state")
        os.environ.update(stack.client | {"PREFECT_HOME": str(home / "client")})
        yield stack
    finally:
        subprocess.run([commands / "down", "--state", home / "state"], check=False)
        shutil.rmtree(home, ignore_errors=True)


class Watch:
    """CPU and memory of the servers' process trees while a block runs.

    Attributes:
        cpu_s: CPU seconds, by server.
        mb: the largest proportional share of memory (PSS), by server.
    """

    def __init__(self, stack: Stack) -> None:
        _, _, parts = supervisor.records(stack.state)
        self._roots = {name: psutil.Process(parts[name].pid) for name in SERVERS}
        self.cpu_s, self.mb = dict.fromkeys(SERVERS, 0.0), dict.fromkeys(SERVERS, 0.0)
        self._stop = threading.Event()

    def __enter__(self) -> "Watch":
        self._before = {name: _cpu_s(root) for name, root in self._roots.items()}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_s = {name: _cpu_s(root) - self._before[name] for name, root in self._roots.items()}

    def _look(self) -> None:
        while True:
            for name, root in self._roots.items():
                self.mb[name] = max(self.mb[name], _pss(root) / 2**20)
            if self._stop.wait(_SECONDS_BETWEEN_LOOKS):
                return


def folder_bytes(folder: Path) -> int:
    """The disk space of a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def _cpu_s(root: psutil.Process) -> float:
    """CPU seconds of a tree; a parent's include those of its ended children."""
    seconds = 0.0
    for process in _tree(root):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def _pss(root: psutil.Process) -> int:
    size = 0
    for process in _tree(root):
        with suppress(psutil.NoSuchProcess):  # zombies included
            size += process.memory_full_info().pss
    return size
