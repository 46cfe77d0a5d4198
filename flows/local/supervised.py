"""Processes under the supervisor, and the environment that the pipeline gives its stages."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from reflux.components.core.errors import UserError, printable
from reflux.flows.local.environment import QUIET

GRACE_S = 20.0  # below the 30 s a Prefect worker gives a cancelled run
STAGE_ENVIRONMENT = {
    # torch's threads look a little while for more work before they sleep: long enough for the next small kernel, too
    # short to burn the cores of others. A bare step of resnet8_slim learns from 11,960 images/s so, from 6,736 when
    # they sleep at once (OMP_WAIT_POLICY=PASSIVE); next to a process that burns one of two cores, from 2,419 and 2,891,
    # and from 1,348 at ten times the while (`python -m benchmarks.threads`).
    "GOMP_SPINCOUNT": "3000",
    # Memory is kept for the next step instead of given back: `time python -m reflux.components.stages.finetune`
    # spends a quarter of the system time with it.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
_SUPERVISOR = Path(__file__).with_name("supervise.py")


def supervised(
    command: list[str],
    environment: Mapping[str, str],
    stdout: int | None = None,
    grace_s: float = GRACE_S,
    asked_by: signal.Signals = signal.SIGINT,
) -> "subprocess.Popen[str]":
    """Start a command under the supervisor, in its own session and with this Python first on its PATH.

    Args:
        command: the program and its arguments.
        environment: variables that go before this process's own.
        stdout: takes stdout and stderr; by default both are this process's.
        grace_s: seconds that it has to end once it is asked to, before SIGKILL.
        asked_by: the signal that asks it. DVC puts its locks in order at SIGINT, where SIGTERM would end it in the
            middle of writing them.

    Raises:
        UserError: this is not Linux.
        RuntimeError: called outside the main thread.
    """
    if sys.platform != "linux":
        raise UserError("Reflux supervises its stages through the Linux kernel: run it on Linux (WSL and Docker do).")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a supervised process must be started in the main thread, which it lives as long as")
    supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid()), str(grace_s), str(int(asked_by))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    settings = {"PATH": path, "SHELL": "/bin/sh", "PYTHONUNBUFFERED": "1", **QUIET, **environment}
    return subprocess.Popen(
        [*supervisor, *command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT if stdout is not None else None,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**STAGE_ENVIRONMENT, **os.environ, **settings},
    )


def output_of(
    process: "subprocess.Popen[str]", meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, list[str]]:
    """Wait for a supervised process whose ``stdout`` is a pipe; returns its exit code and the lines that it printed.

    Its notes are printed at once, as they say why it takes long.

    Args:
        process: that is awaited.
        meanwhile: work that is done first, while it runs.
    """
    lines = []
    with process:
        try:
            meanwhile()
            for line in process.stdout or ():
                lines.append(printable(line.rstrip("\n")))
                if line.startswith("Note: "):
                    print(lines[-1], flush=True)
        except BaseException:
            stop(process)
            raise
    return process.returncode, [line for line in lines if line.strip()]


def stop(process: "subprocess.Popen[str]") -> None:
    """End a supervised process and wait until its tree is gone."""
    if process.poll() is None:
        process.terminate()
    process.wait()
