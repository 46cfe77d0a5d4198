"""The life of a stage process: params in, artifacts out, one journal, clean ends.

``python -m reflux.components.<stage>`` calls :func:`run` with the stage's function.
"""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from reflux.components.core import dvc_yaml
from reflux.components.core.artifacts import ARTIFACTS, fingerprint, translate_os_error, write_json
from reflux.components.core.contract import STAGES
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.params.run import Run
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, launch, lineage, openlineage, tracking
from reflux.components.core.runtime.journal import (
    COURIER_VARIABLE,
    PARENT_RUN_VARIABLE,
    PARENT_VARIABLE,
    Journal,
    NullJournal,
    Status,
)
from reflux.components.core.runtime.machine import machine

if TYPE_CHECKING:  # torch takes two seconds, which stages that only look at data do without
    from reflux.components.core.runtime.checkpoint import Checkpoints
    from reflux.components.core.runtime.world import World

CHECKPOINTS = Path(".reflux/checkpoints")
BEFORE = "-before"  # ends the name of the folder for training runs before the stage's own
EXIT_INTERRUPTED = 130


class Stage:
    """One execution of a stage: its params, the artifacts it reads and writes, and its journal."""

    def __init__(self, name: str, params: Params, world: "World | None" = None) -> None:
        self.name, self.params, self._world = name, params, world
        self._inputs: dict[str, Path] = {}
        self._hashes: dict[str, str] = {}
        self._checkpoints: Checkpoints | None = None
        self.began = time.time()
        self.kept = CHECKPOINTS  # where a training run that was interrupted finds its state
        # What moves the last digits of the result and is neither code, data nor params: packages, and what the stage
        # adds on how it computes.
        self.environment: dict[str, Any] = dict(installed.builds(name, params.compress.ships))

    @cached_property
    def world(self) -> "World":
        """The processes that work on this stage together."""
        from reflux.components.core.runtime.world import ALONE

        return self._world or ALONE

    @cached_property
    def journal(self) -> Journal:
        """The journal of this run, which rank 0 keeps; a resumed training run continues the killed one's."""
        if launch.rank():
            return NullJournal()
        tags = {"stage": self.name, "run_kind": "stage"}
        if role := STAGES[self.name].role:
            tags["role"] = role
        if parent_run := os.environ.get(PARENT_RUN_VARIABLE):
            tags["mlflow.parentRunId"] = parent_run
        parent = os.environ.get(PARENT_VARIABLE)
        continues = self._checkpoints.journal if self._checkpoints else None
        journal = Journal(self.params.project.name, self.name, tags, parent=parent, continues=continues)
        if self._checkpoints:
            self._checkpoints.begin(journal.run_key)
        dump = self._section(self.name)
        journal.params({self.name: dump} if dump else {})
        journal.params({"seed": self.params.seed})
        openlineage.emit("START", self.began, journal.run_key, self.params, self.name, parent)
        return journal

    def checkpoints(self, *sections: str, before: str | None = None) -> "Checkpoints":
        """This stage's checkpoints, keyed by code, environment, inputs read so far, seed and sections of the params.

        Must be called before the journal is first used: a resumed training run continues its run in MLflow.

        Args:
            sections: of the params that decide the result.
            before: the name of a training run before the stage's own, which has its own checkpoints.

        Raises:
            UserError: there is a checkpoint, and it is damaged.
        """
        from reflux.components.core.runtime.checkpoint import Checkpoints

        recipe = {section: self._section(section) for section in sections}
        code = lineage.code_sha256(f"stages.{self.name}")
        decides = [self.name, before, self.params.seed, recipe, self.inputs(), self.environment, code]
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        folder = self.kept / f"{self.name}{BEFORE}" / before if before else self.kept / self.name
        self._checkpoints = checkpoints = Checkpoints(folder, key, self.params.run.checkpoint_every_s, self.world)
        if "journal" in vars(self):  # begun by a training run before this one
            checkpoints.begin(self.journal.run_key)
        if checkpoints.images and self.world.first:
            print(f"Note: goes on after {checkpoints.images:,} images, where it was interrupted", flush=True)
        return checkpoints

    def _section(self, name: str) -> Any:
        return self.params.model_dump(by_alias=True, exclude={"run"}).get(name)

    @cached_property
    def _dependencies(self) -> list[str]:
        return dvc_yaml.reads(dvc_yaml.stages()[self.name])

    def read(self, relative: str) -> Path:
        """The path of another stage's artifact, noted as an input of this run.

        Raises:
            UserError: the artifact is missing, or ``dvc.yaml`` does not list it, so that no stage opens the test split
                that does not say so.
        """
        path = Path(os.path.normpath(ARTIFACTS / relative))
        if not any(path.is_relative_to(dependency) for dependency in self._dependencies):
            raise UserError(
                f"{self.name} must not read {path}: it is not among the stage's deps in dvc.yaml, and a stage reads "
                "nothing that DVC would not run it again for."
            )
        if not path.exists():
            raise UserError(f"{path} is missing: run the stage that makes it first (`reflux run`).")
        self._inputs[str(path)] = path
        return path

    def source(self, path: Path) -> Path:
        """Note a path outside ``artifacts/`` as an input of this run."""
        self._inputs[str(path)] = path
        return path

    def out(self, name: str) -> Path:
        """The path of one of this stage's own artifacts."""
        return ARTIFACTS / self.name / name

    def close(self, status: Status, problem: str) -> None:
        """Close the journal, and tell OpenLineage; ``problem`` is the sentence of a failure."""
        self.journal.end(status)
        if launch.rank() or not os.environ.get(openlineage.URL):
            return
        kinds: dict[Status, openlineage.Kind] = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "ABORT"}
        whole = status == "FINISHED"  # else a file may be gone, and hashing takes time that a stop does not leave
        details = {
            "inputs": self.inputs() if whole else dict.fromkeys(self._inputs, ""),
            "outputs": openlineage.written(self.name) if whole else {},
            "error": problem if status == "FAILED" else "",
        }
        parent = os.environ.get(PARENT_VARIABLE)
        key = self.journal.run_key
        openlineage.emit(kinds[status], time.time(), key, self.params, self.name, parent, **details)

    def inputs(self) -> dict[str, str]:
        """The sha256 of every input this run has read."""
        self._hashes |= {name: fingerprint(path) for name, path in self._inputs.items() if name not in self._hashes}
        return dict(self._hashes)


def run(name: str, body: Callable[[Stage], None]) -> NoReturn:
    """Run one stage to a clean end: exit 0, 2 for what the user can fix, 130 when stopped.

    With ``run.launcher = torchrun`` this process only starts the workers, each of which calls this function in turn.
    """
    try:
        code = _run(name, body)
    except KeyboardInterrupt:  # it was already ending when it was asked to
        signal.setitimer(signal.ITIMER_REAL, 0)
        code = EXIT_INTERRUPTED
    except BaseException:
        if not launch.in_rank():
            raise
        traceback.print_exc()
        code = 1
    if not launch.in_rank():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # torch would first wait for processes that may be gone


def _run(name: str, body: Callable[[Stage], None]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    # A disk that fills up must reach us as an error of the write, not as a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    stage: Stage | None = None
    status: Status = "FAILED"
    problem, code = "", 1
    began = time.time()
    try:
        params = load_params()
        if launch.in_rank():
            launch.set_up_worker(name)
        elif params.run.launcher == "torchrun" and STAGES[name].distributed:
            return launch.launch(name, params.run)
        with _joined(params.run) if launch.in_rank() else nullcontext() as world:
            stage = Stage(name, params, world)
            stage.began = began
            (ARTIFACTS / name).mkdir(parents=True, exist_ok=True)
            body(stage)
        if not launch.rank():
            wall = time.time() - began
            stage.journal.metrics({"wall_s": wall})
            run_file = {"stage": name, "mlflow_run_id": stage.journal.run_id(), "journal": stage.journal.run_key}
            facts = {"environment": stage.environment, "inputs": stage.inputs(), "wall_s": round(wall, 3)}
            facts |= {"machine": machine(), "began": stage.began, "pipeline": os.environ.get(PARENT_VARIABLE)}
            write_json(stage.out("run.json"), run_file | facts)
        status, code = "FINISHED", 0
    except (UserError, OSError) as error:
        fixable = translate_os_error(error, Path(error.filename or ".")) if isinstance(error, OSError) else error
        if not isinstance(fixable, UserError):
            raise
        problem = str(fixable)
        _report(problem)
        code = EXIT_USER_ERROR
    except RuntimeError as error:
        if not (launch.in_rank() and _lost(error)):
            raise
        print(f"Warning: {name} lost a process ({str(error).splitlines()[0]}).", file=sys.stderr)
        status = "KILLED"
    except KeyboardInterrupt:
        status, code = "KILLED", EXIT_INTERRUPTED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if launch.in_rank():  # the launcher asks all to end as soon as one has
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if stage is not None:
            stage.close(status, problem or str(sys.exception() or ""))
            if not launch.rank() and not os.environ.get(COURIER_VARIABLE):
                tracking.deliver()
    return code


def _joined(settings: Run) -> "AbstractContextManager[World]":
    from reflux.components.core.runtime.world import join

    return join(settings.device, settings.lost_after_s)


def _lost(error: RuntimeError) -> bool:
    from reflux.components.core.runtime.world import is_lost_process

    return is_lost_process(error)


def _report(sentence: str) -> None:
    if launch.in_rank():
        launch.report_user_error(sentence)
    else:
        print(f"Error: {sentence}", file=sys.stderr)


class _Stopped(KeyboardInterrupt):
    """A stop by SIGTERM: after a KeyboardInterrupt itself in an import, Python would not end with our exit code."""


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Raise :class:`_Stopped`, and again every half second unless one is already being handled.

    Python drops an exception raised in a destructor or in a callback from C, and a stop would be lost with it.
    """
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    if not isinstance(sys.exception(), _Stopped):
        raise _Stopped
