"""Run the pipeline's stages: each is ``dvc repro --single-item`` in a supervised process tree."""

import json
import re
import signal
import threading
import uuid
from collections import deque
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from reflux.components.core.contract import STAGES
from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.errors import EXIT_USER_ERROR, printable
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.core.runtime.progress import EVENTS_VARIABLE, RECORD
from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.repo.checkout import dvc, start_dvc

THREADS_VARIABLE = "REFLUX_THREADS"
_MARK_VARIABLE = "REFLUX_STAGE_MARK"
_TAIL_LINES = 60
_SECONDS_FOR_LAST_LINES = 5.0

# What DVC prints when it can't write the results of a stage that succeeded.
_USER_ERRORS = {
    "No space left on device": "no space left on the disk: free some space and run again",
    "Disk quota exceeded": "the disk quota is used up: free some space and run again",
    "Permission denied": "no permission to write its results: make artifacts/ and .dvc/ writable and run again",
    "Read-only file system": "the file system is read-only: move the project to one that can be written",
}
_EXITED_WITH = re.compile(r"exited with (-?\d+)")
_LOCKED = re.compile(r"is busy, it is being blocked|[Uu]nable to acquire lock")
_OURS = re.compile(r"missing data|not found inside|is invalid|[Vv]alidation failed")  # not the remote's fault
_CHATTER = re.compile(
    r"> |(Generating|Updating) lock file|Use `dvc push`|Data and pipelines are up"
    r"|To (track the changes|enable auto staging)|\s+(git add|dvc config) "
)
_RUNNING = "Running stage "


class Watcher(Protocol):
    """Follows a stage; called from the stage's reader thread."""

    def event(self, stage: str, event: dict[str, Any]) -> None:
        """Progress: ``{"label", "unit", "done", "total", "rate", "facts"}``."""

    def line(self, stage: str, text: str) -> None:
        """A line of text that the stage or DVC printed."""

    def executing(self, stage: str) -> None:
        """DVC found a change and runs the stage's command."""


class Running:
    """One started stage.

    Must be created in the main thread: the supervisor lives as long as the thread that started it.

    Args:
        stage: the stage's name in ``dvc.yaml``.
        watcher: gets each line and each progress event.
        environment: variables for the stage, in addition to this process's own.
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
        self._process = start_dvc("repro", *options, stage, environment=environment)
        self._reader = threading.Thread(target=self._read, name=f"{stage}-output", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether the stage is still running."""
        return self._process.poll() is None

    def wait(self) -> StageOutcome:
        """Wait for the end.

        Raises:
            StageFailed: the stage, or DVC, failed.
        """
        code = self._process.wait()
        self._clean(code)
        self._reader.join(_SECONDS_FOR_LAST_LINES)
        if code != 0:
            raise failure(self.stage, code, list(self._tail), restoring=self._pull and not self._executed)
        return StageOutcome.RAN if self._executed else StageOutcome.CACHED

    def terminate(self) -> None:
        """Ask the stage's process tree to end; it is killed after the grace time."""
        if self.alive:
            self._process.terminate()

    def stop(self) -> None:
        """End the stage's whole process tree and wait until it is gone."""
        self.terminate()
        self._clean(self._process.wait())
        self._reader.join(_SECONDS_FOR_LAST_LINES)

    def _clean(self, code: int) -> None:
        # Only a supervisor that was itself killed leaves processes behind; the variable they inherited marks them.
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
            elif text := printable(text):
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
    """Starts stages, and ends those that are still running when its block is left for any reason.

    Args:
        watcher: follows the stages.
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
            running.terminate()
        for running in self._started:
            running.stop()

    def start(self, stage: str, shares_cores: bool = False) -> Running:
        """Start a stage; those that run at the same time share the cores."""
        others = sum(running.alive for running in self._started)
        share = {}
        if shares_cores or others:
            share = {THREADS_VARIABLE: str(max(1, usable_cores() // 2))}
        running = Running(stage, self._watcher, self._environment | share, stage in self._forced, self._pull)
        self._started.append(running)
        self._awaited[stage] = running
        return running

    def run(self, stage: str) -> StageOutcome:
        """Run a stage to its end; starts it unless it is running already.

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


def unchanged(forced: Collection[str] = frozenset()) -> set[str]:
    """The stages that need no run: those before the first that is forced or that DVC finds changed.

    One check of all of them costs as much as one ``dvc repro``.

    Raises:
        StageFailed: DVC cannot read the pipeline.
    """
    code, lines = dvc("status", "--json", str(PIPELINE))
    if code != 0 or not lines or not lines[-1].startswith("{"):
        raise failure("dvc status", code, lines)
    changed = json.loads(lines[-1])
    first = next((i for i, stage in enumerate(STAGES) if stage in changed or stage in forced), len(STAGES))
    return set(tuple(STAGES)[:first])


def failure(stage: str, code: int, lines: list[str], restoring: bool = False) -> StageFailed:
    """Read from a failed stage's last lines what happened and whether trying again may help.

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
    fix = next((fix for sign, fix in _USER_ERRORS.items() if sign in text), None)
    if fix and stage_code is None:
        return StageFailed(stage, fix, True, False, tuple(lines))
    if _LOCKED.search(text):
        sentence, transient = "another DVC command works in this project: wait until it ends, and run again", True
    elif killed_by:
        sentence, transient = f"it was killed by {killed_by} (SIGKILL often means out of memory)", True
    elif restoring and "ERROR: " in text and not _OURS.search(text):
        reason = (own_sentence(lines) or "no reason given").rstrip(".")
        sentence = f"DVC's remote does not return what is stored there ({reason}): check it (`dvc remote list`)"
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


def _signal_name(code: int) -> str | None:
    number = -code if code < 0 else code - 128
    if code == 255 or number not in {s.value for s in signal.Signals}:
        return None
    return signal.Signals(number).name
