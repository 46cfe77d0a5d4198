"""The process above the stack's parts: starts them in order, restarts those that end, and ends them all."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from infra.local.parts import Part, busy, parts
from infra.local.settings import Stack
from reflux.components.core.artifacts import write_json
from reflux.components.core.errors import UserError
from reflux.flows.local.supervised import supervised

_SECONDS_TO_ANSWER = 300.0
_SECONDS_BETWEEN_LOOKS = 0.2
_STEADY_S = 60.0  # a part that ran for so long has recovered
_LONGEST_PAUSE_S = 30.0


@dataclass
class Record:
    """The state of a part, for ``status``.

    Attributes:
        pid: of its supervisor process; 0 while it does not run.
        since: when it was started, in seconds since the epoch.
        restarts: how often it ended by itself and was restarted.
    """

    pid: int = 0
    since: float = 0.0
    restarts: int = 0


class Supervisor:
    """Keeps the parts of one stack alive until a signal stops it."""

    def __init__(self, stack: Stack, members: list[Part]) -> None:
        self.stack, self.parts = stack, members
        self.records = {part.name: Record() for part in self.parts}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._not_before: dict[str, float] = {}
        self.stopping = False

    def run(self) -> None:
        """Start all parts, watch them, and end them when a signal asks for it.

        Raises:
            UserError: a part did not come up.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            self._write()
            for part in self.parts:
                self._bring_up(part)
                self._write()
            self._write(ready=True)
            while not self.stopping:
                for part in self.parts:
                    self._watch(part)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            self._end()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _bring_up(self, part: Part) -> None:
        if self.stopping:
            return
        part.prepare(self.stack)
        self._start(part)
        deadline = time.monotonic() + _SECONDS_TO_ANSWER
        while not part.is_up():
            ended = self._running[part.name].poll() is not None
            if self.stopping:
                return
            if ended or time.monotonic() > deadline:
                what = "ended at once" if ended else f"did not answer in {_SECONDS_TO_ANSWER:.0f} s"
                raise UserError(f"{part.name} {what}: {log_of(self.stack, part.name)} says why.")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        part.complete(self.stack)
        _log(f"{part.name} answers at {part.at}")

    def _start(self, part: Part) -> None:
        # The parts get their own variables, and nothing else from the environment of `up`.
        with log_of(self.stack, part.name).open("a", encoding="utf-8") as log, _environment(part.environment):
            process = supervised(part.command, {}, stdout=log.fileno(), grace_s=part.grace_s)
        self._running[part.name] = process
        record = self.records[part.name]
        record.pid, record.since = process.pid, time.time()

    def _watch(self, part: Part) -> None:
        process, record = self._running[part.name], self.records[part.name]
        if process.poll() is None:
            return
        now = time.time()
        if record.pid:
            steady = now - record.since > _STEADY_S
            pause = 0.0 if steady else min(2.0 ** (record.restarts % 8), _LONGEST_PAUSE_S)
            self._not_before[part.name] = now + pause
            _log(f"{part.name} ended with code {process.returncode}: it is restarted in {pause:.0f} s")
            record.pid = 0
        elif now >= self._not_before[part.name]:
            record.restarts += 1
            self._start(part)
        else:
            return
        self._write(ready=True)

    def _end(self) -> None:
        """End the workers first, while they can still report to the servers, and the databases last."""
        groups = (("worker-",), ("mlflow", "prefect"), ("s3", "postgres"))
        for group in groups:
            ending = [self._running[name] for name in self._running if name.startswith(group)]
            for process in ending:
                if process.poll() is None:
                    process.terminate()
            for process in ending:
                process.wait()
        (self.stack.state / "parts.json").unlink(missing_ok=True)
        _log("all parts have ended")

    def _write(self, ready: bool = False) -> None:
        records = {name: asdict(record) for name, record in self.records.items()}
        write_json(self.stack.state / "parts.json", {"pid": os.getpid(), "ready": ready, "parts": records})


def supervise(stack: Stack) -> None:
    """Supervise ``stack`` until a signal stops it.

    Raises:
        UserError: it has one already, a port is taken, or a part did not come up.
    """
    lock = FileLock(stack.state / "supervisor.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"The stack in {stack.state} has a supervisor already.") from None
    with lock:
        if taken := busy(stack):
            raise UserError(taken)
        Supervisor(stack, parts(stack)).run()


def alive(state: Path) -> bool:
    """Whether a stack's supervisor runs."""
    if not (state / "supervisor.lock").is_file():
        return False
    lock = FileLock(state / "supervisor.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def records(state: Path) -> tuple[int, bool, dict[str, Record]]:
    """The supervisor's pid (0 before it has written any), whether all parts came up, and their records."""
    try:
        state_file = json.loads((state / "parts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0, False, {}
    return (
        state_file["pid"],
        state_file["ready"],
        {name: Record(**record) for name, record in state_file["parts"].items()},
    )


def log_of(stack: Stack, name: str) -> Path:
    """A part's log file."""
    return stack.state / "log" / f"{name}.log"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Reduce this process's environment to ``values`` and a few variables of the machine."""
    before = dict(os.environ)
    kept = {key: before[key] for key in ("PATH", "HOME", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES") if key in before}
    os.environ.clear()
    os.environ.update(kept | values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)
