"""How a stage runs: params in, artifacts out, one journal, clean ends.

``python -m components.<stage>`` calls :func:`run` with the stage's function.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from components.core import params as parameters
from components.core import tracking
from components.core.artifacts import ARTIFACTS, fingerprint, mendable, sha256_file, write_json
from components.core.checkpoint import Checkpoints
from components.core.errors import EXIT_USER_ERROR, UserError
from components.core.journal import COURIER_VARIABLE, PARENT_VARIABLE, Journal, Status

CHECKPOINTS = Path(".reflux/checkpoints")
EXIT_INTERRUPTED = 130


class Stage:
    """One execution of a stage: where it reads, where it writes, and its journal."""

    def __init__(self, name: str, params: parameters.Params) -> None:
        self.name, self.params = name, params
        self._inputs: dict[str, Path] = {}
        self._hashes: dict[str, str] = {}
        self._continues: str | None = None

    @cached_property
    def journal(self) -> Journal:
        """The journal of this run; that of a training which goes on after a kill continues the killed one's."""
        tags = {"stage": self.name, "run_kind": "stage"}
        parent = os.environ.get(PARENT_VARIABLE)
        journal = Journal(self.params.project.name, self.name, tags, parent=parent, continues=self._continues)
        dump = self._section(self.name)
        journal.params({self.name: dump} if dump else {})
        journal.params({"seed": self.params.seed})
        return journal

    def checkpoints(self, *sections: str) -> Checkpoints:
        """This stage's checkpoints, keyed by its code, the inputs read so far, the seed and sections of the params.

        Must be asked for before the journal is first used: a training that goes on continues its run in MLflow.

        Raises:
            UserError: there is a checkpoint, and it is damaged.
        """
        code = [Path(__file__).parent, Path(__file__).parents[1] / self.name]
        sources = {str(file): sha256_file(file) for folder in code for file in sorted(folder.glob("*.py"))}
        recipe = {section: self._section(section) for section in sections}
        decides = [self.name, self.params.seed, recipe, self.inputs(), list(sources.values())]
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        found = Checkpoints(CHECKPOINTS / self.name, key, self.params.run.checkpoint_every_s)
        self._continues = found.journal
        if found.images:
            print(f"{self.name}: goes on after {found.images:,} images, where it was interrupted", flush=True)
        return found

    def _section(self, name: str) -> Any:
        return self.params.model_dump(by_alias=True, exclude={"run"}).get(name)

    def read(self, relative: str) -> Path:
        """The path of another stage's artifact, noted as an input of this run.

        Raises:
            UserError: the artifact is missing.
        """
        path = ARTIFACTS / relative
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

    def inputs(self) -> dict[str, str]:
        """The sha256 of every input this run has read."""
        fresh = {name: fingerprint(path) for name, path in self._inputs.items() if name not in self._hashes}
        self._hashes |= fresh
        return dict(self._hashes)


def run(name: str, body: Callable[[Stage], None]) -> NoReturn:
    """Run one stage to a clean end: exit 0, 2 for what the user can mend, 130 when stopped."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A disk that fills up must reach us as an error of the write, not as a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    stage: Stage | None = None
    status: Status = "FAILED"
    code = 1
    began = time.time()
    try:
        stage = Stage(name, parameters.load())
        (ARTIFACTS / name).mkdir(parents=True, exist_ok=True)
        body(stage)
        wall = time.time() - began
        stage.journal.metrics({"wall_s": wall})
        run_file = {"stage": name, "mlflow_run_id": stage.journal.run_id(), "journal": stage.journal.run_key}
        write_json(stage.out("run.json"), run_file | {"inputs": stage.inputs(), "wall_s": round(wall, 3)})
        status, code = "FINISHED", 0
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except OSError as error:
        mended = mendable(error, Path(error.filename or "."))
        if not isinstance(mended, UserError):
            raise
        print(f"Error: {mended}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        status, code = "KILLED", EXIT_INTERRUPTED
    finally:
        if stage is not None:
            stage.journal.end(status)
            if not os.environ.get(COURIER_VARIABLE):
                tracking.deliver()
    sys.exit(code)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, for what does not draw from the counter-based generator."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
