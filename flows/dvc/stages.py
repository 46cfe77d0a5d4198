"""Starts the pipeline's stages: each is ``dvc repro --single-item`` in a supervised process tree."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from components.core.contract import STAGES
from components.core.errors import EXIT_USER_ERROR, UserError
from components.core.runtime.progress import EVENTS_VARIABLE, RECORD
from flows.local.environment import QUIET, mend_dvc_lock

THREADS_VARIABLE = "REFLUX_THREADS"
GRACE_S = 20.0  # below the 30 s a Prefect worker gives a cancelled run
STAGE_ENVIRONMENT = {
    # torch's threads look a little while for more work before they sleep: long enough for the next small kernel, too
    # short to burn the cores of others. A bare step of resnet8_slim learns from 11,960 images/s so, from 6,736 when
    # they sleep at once (OMP_WAIT_POLICY=PASSIVE); beside a process that burns one of two cores, from 2,419 and 2,891,
    # and from 1,348 at ten times the while (`python -m benchmarks.threads`).
    "GOMP_SPINCOUNT": "3000",
    # Memory is kept for the next step instead of given back: `time python -m components.finetune` spends a quarter of
    # the system time with it.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
_MARK_VARIABLE = "REFLUX_STAGE_MARK"
_SUPERVISOR = Path(__file__).parents[1] / "local" / "supervise.py"
_TAIL_LINES = 60
_SECONDS_FOR_LAST_LINES = 5.0

# What DVC says when it can't write the results of a stage that succeeded.
_MENDABLE = {
    "No space left on device": "no space left on the disk: free some space and run again",
    "Disk quota exceeded": "the disk quota is used up: free some space and run again",
    "Permission denied": "no permission to write its results: make artifacts/ and .dvc/ writable and run again",
    "Read-only file system": "the file system is read-only: move the project to one that can be written",
}
_EXITED_WITH = re.compile(r"exited with (-?\d+)")
_LOCKED = re.compile(r"is busy, it is being blocked|[Uu]nable to acquire lock")
_OURS = re.compile(r"missing data|not found inside|is invalid|[Vv]alidation failed")  # what no remote is the reason of
_CHATTER = re.compile(
    r"> |(Generating|Updating) lock file|Use `dvc push`|Data and pipelines are up"
    r"|To (track the changes|enable auto staging)|\s+(git add|dvc config) "
)
_RUNNING = "Running stage "


class Outcome(StrEnum):
    """What DVC did for a stage."""

    RAN = "ran"
    CACHED = "cached"


class StageFailed(Exception):
    """A stage that did not finish.

    Args:
        stage: its name.
        sentence: what went wrong, in the stage's own words where it left any.
        user_error: the user can mend it, and running it again as it is cannot.
        transient: it can pass by itself.
        tail: the last lines the stage printed.
    """

    def __init__(
        self, stage: str, sentence: str, user_error: bool = False, transient: bool = False, tail: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"{stage}: {sentence}")
        self.stage, self.sentence, self.tail = stage, sentence, tail
        self.user_error, self.transient = user_error, transient


class Watcher(Protocol):
    """Whoever is told what a stage says; called from the stage's reader thread."""

    def event(self, stage: str, event: dict[str, Any]) -> None:
        """Progress: ``{"label", "unit", "done", "total", "rate", "facts"}``."""

    def line(self, stage: str, text: str) -> None:
        """A line of text that the stage or DVC printed."""

    def executing(self, stage: str) -> None:
        """DVC found something changed and runs the stage's command."""


class Running:
    """One started stage.

    Must be created in the main thread: the supervisor lives as long as the thread that started it.

    Args:
        stage: the stage's name in ``dvc.yaml``.
        watcher: is told of each line and each progress event.
        environment: variables for the stage beside this process's own.
        force: run the stage even where DVC sees no change.
        pull: restore from DVC's remote what any machine has computed.
    """

    def __init__(
        self, stage: str, watcher: Watcher, environment: Mapping[str, str], force: bool = False, pull: bool = False
    ) -> None:
        self.stage, self._watcher = stage, watcher
        self._executed, self._pull = False, pull
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._mark = uuid.uuid4().hex
        environment = {EVENTS_VARIABLE: "1", _MARK_VARIABLE: self._mark, **environment}
        options = ["--single-item", *["--force"] * force, *["--pull"] * pull]
        dvc = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *options, stage]
        self._process = supervised(dvc, environment, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, name=f"{stage}-output", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether the stage still works."""
        return self._process.poll() is None

    def wait(self) -> Outcome:
        """Wait for the end.

        Raises:
            StageFailed: the stage, or DVC, failed.
        """
        code = self._process.wait()
        self._clean(code)
        self._reader.join(_SECONDS_FOR_LAST_LINES)
        if code != 0:
            raise failure(self.stage, code, list(self._tail), restoring=self._pull and not self._executed)
        return Outcome.RAN if self._executed else Outcome.CACHED

    def ask_to_stop(self) -> None:
        """Have the stage's process tree end: SIGTERM, then SIGKILL after the grace time."""
        if self.alive:
            self._process.terminate()

    def stop(self) -> None:
        """End the stage's whole process tree and wait until it is gone."""
        self.ask_to_stop()
        self._clean(self._process.wait())
        self._reader.join(_SECONDS_FOR_LAST_LINES)

    def _clean(self, code: int) -> None:
        # Only a supervisor that was itself killed leaves anyone behind; what they inherited still marks them.
        if code < 0:
            for process in psutil.process_iter():
                try:
                    if process.environ().get(_MARK_VARIABLE) == self._mark:
                        process.kill()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe above
        for raw in self._process.stdout:
            text = raw.rstrip()
            if text.startswith(RECORD):
                self._event(text.removeprefix(RECORD))
            elif text:
                self._tail.append(text)
                if text.startswith(_RUNNING):
                    self._executed = True
                    self._watcher.executing(self.stage)
                elif not _CHATTER.match(text):
                    self._watcher.line(self.stage, text)

    def _event(self, text: str) -> None:
        try:
            event = json.loads(text)
        except json.JSONDecodeError:  # cut short by a kill, or mixed with another line
            return
        self._watcher.event(self.stage, event)


class Runner:
    """Starts stages and leaves none running: on leaving its block, for whatever reason, every live one is ended.

    Args:
        watcher: is told what the stages say.
        environment: variables for every stage.
        forced: the stages that run even where DVC sees no change.
        pull: restore from DVC's remote what any machine has computed.
    """

    def __init__(
        self,
        watcher: Watcher,
        environment: Mapping[str, str],
        forced: Collection[str] = frozenset(),
        pull: bool = False,
    ) -> None:
        self._watcher, self._environment, self._forced, self._pull = watcher, dict(environment), forced, pull
        self._started: list[Running] = []
        self._awaited: dict[str, Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._started:
            running.ask_to_stop()
        for running in self._started:
            running.stop()

    def start(self, stage: str, beside_another: bool = False) -> Running:
        """Start a stage; those that run at the same time share the cores."""
        mend_dvc_lock()
        others = sum(running.alive for running in self._started)
        share = {}
        if beside_another or others:
            share = {THREADS_VARIABLE: str(max(1, usable_cores() // 2))}
        running = Running(stage, self._watcher, self._environment | share, stage in self._forced, self._pull)
        self._started.append(running)
        self._awaited[stage] = running
        return running

    def run(self, stage: str) -> Outcome:
        """See a stage to its end; it is started here, unless it has been started and not awaited yet.

        Raises:
            StageFailed: the stage failed.
        """
        if stage not in self._awaited:
            self.start(stage)
        try:
            return self._awaited.pop(stage).wait()
        except StageFailed as failed:
            if failed.transient:
                self._watcher.line(stage, f"Warning: {failed.sentence}.")
            raise


def supervised(
    command: list[str], environment: Mapping[str, str], stdout: int | None = None, grace_s: float = GRACE_S
) -> "subprocess.Popen[str]":
    """Start a command under the supervisor, in its own session and with this Python first on its PATH.

    Raises:
        UserError: this is no Linux, or not the main thread called.
    """
    if sys.platform != "linux":
        raise UserError("Reflux supervises its stages through the Linux kernel: run it on Linux (WSL and Docker do).")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a supervised process must be started in the main thread, which it lives as long as")
    supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid()), str(grace_s)]
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


def unchanged(forced: Collection[str] = frozenset()) -> set[str]:
    """The stages that need no run: those before the first that is forced or that DVC finds changed.

    One look at all of them costs as much as one ``dvc repro``.

    Raises:
        StageFailed: DVC cannot read the pipeline.
    """
    mend_dvc_lock()
    process = supervised([sys.executable, "-m", "dvc", "status", "--json"], {}, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.strip()]
    if process.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise failure("dvc status", process.returncode, lines)
    changed = json.loads(lines[-1])
    first = next((i for i, stage in enumerate(STAGES) if stage in changed or stage in forced), len(STAGES))
    return set(tuple(STAGES)[:first])


def failure(stage: str, code: int, lines: list[str], restoring: bool = False) -> StageFailed:
    """Read from a failed stage's last lines what happened and whether trying again could help.

    Args:
        stage: its name.
        code: DVC's exit code.
        lines: the last that it printed.
        restoring: DVC was still asking its remote for what others have computed.
    """
    text = "\n".join(lines)
    exited = _EXITED_WITH.search(text)
    stage_code = int(exited.group(1)) if exited else None
    killed_by = _signal_name(stage_code if stage_code is not None else code)
    mend = next((mend for sign, mend in _MENDABLE.items() if sign in text), None)
    if mend and stage_code is None:
        return StageFailed(stage, mend, True, False, tuple(lines))
    if _LOCKED.search(text):
        sentence, transient = "another DVC command holds the lock of this checkout", True
    elif killed_by:
        sentence, transient = f"it was killed by {killed_by} (SIGKILL often means out of memory)", True
    elif restoring and "ERROR: " in text and not _OURS.search(text):
        sentence = f"DVC's remote does not give what is stored there ({own_sentence(lines) or 'no reason given'})"
        return StageFailed(stage, sentence, True, True, tuple(lines))
    else:
        sentence, transient = own_sentence(lines) or "it left no message", False
    return StageFailed(stage, sentence, stage_code == EXIT_USER_ERROR, transient, tuple(lines))


def own_sentence(lines: list[str]) -> str:
    """The stage's own ``Error: …`` (it may go on over several lines), or else DVC's last ``ERROR``."""
    starts = [i for i, line in enumerate(lines) if line.startswith("Error: ")]
    if starts:
        rest = lines[starts[-1] :]
        end = next((i for i, line in enumerate(rest) if line.startswith("ERROR: ")), len(rest))
        return "\n".join(rest[:end]).removeprefix("Error: ")
    errors = [line for line in lines if line.startswith("ERROR: ")]
    before = [line for line in lines if not line.startswith("ERROR: ")]
    if errors and _EXITED_WITH.search(errors[-1]) and before:
        return before[-1]  # the last line of the stage's traceback says more than DVC does
    return errors[-1].removeprefix("ERROR: ") if errors else "".join(lines[-1:])


def usable_cores() -> int:
    """The cores this process may use, which a container or taskset can make fewer than there are."""
    return len(os.sched_getaffinity(0))


def _signal_name(code: int) -> str | None:
    number = -code if code < 0 else code - 128
    if code == 255 or number not in {s.value for s in signal.Signals}:
        return None
    return signal.Signals(number).name
