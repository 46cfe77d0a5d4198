"""How a stage runs: params in, artifacts out, one journal, clean ends.

``python -m components.<stage>`` calls :func:`run` with the stage's function.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from components.core import params as parameters
from components.core import tracking
from components.core.artifacts import ARTIFACTS, fingerprint, mendable, write_json
from components.core.errors import EXIT_USER_ERROR, UserError
from components.core.journal import COURIER_VARIABLE, PARENT_VARIABLE, Journal, Status

EXIT_INTERRUPTED = 130


class Stage:
    """One execution of a stage: where it reads, where it writes, and its journal."""

    def __init__(self, name: str, params: parameters.Params, journal: Journal) -> None:
        self.name, self.params, self.journal = name, params, journal
        self._inputs: dict[str, Path] = {}

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
        return {name: fingerprint(path) for name, path in self._inputs.items()}


def run(name: str, body: Callable[[Stage], None]) -> NoReturn:
    """Run one stage to a clean end: exit 0, 2 for what the user can mend, 130 when stopped."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A disk that fills up must reach us as an error of the write, not as a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal: Journal | None = None
    status: Status = "FAILED"
    code = 1
    began = time.time()
    try:
        params = parameters.load()
        journal = _journal(name, params)
        stage = Stage(name, params, journal)
        (ARTIFACTS / name).mkdir(parents=True, exist_ok=True)
        body(stage)
        wall = time.time() - began
        journal.metrics({"wall_s": wall})
        run_file = {"stage": name, "mlflow_run_id": journal.run_id(), "journal": journal.id}
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
        if journal is not None:
            journal.end(status)
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


def _journal(name: str, params: parameters.Params) -> Journal:
    tags = {"stage": name, "run_kind": "stage"}
    journal = Journal(params.project.name, name, tags, parent=os.environ.get(PARENT_VARIABLE))
    dump = params.model_dump(by_alias=True, exclude={"run"})
    journal.params({name: dump[name]} if name in dump else {})
    journal.params({"seed": params.seed})
    return journal


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
