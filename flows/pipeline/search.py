"""A search for students in a process of its own, while what it finds is delivered to MLflow."""

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.stage import EXIT_INTERRUPTED
from reflux.components.observe.boards.keep import keep as keep_boards
from reflux.flows.repo.stages import own_sentence
from reflux.flows.report.followed import follow

_NAME = "tune"


def search(project: str, ends: float, objectives: Sequence[str], workers: int) -> bool:
    """Search, and keep the boards current.

    Args:
        project: ``project.name``.
        ends: when, in seconds since 1970.
        objectives: names among ``OBJECTIVES``.
        workers: processes that train at the same time.

    Returns:
        False if it was stopped.

    Raises:
        UserError: Optuna is not installed; it said so; or it ended otherwise than it should.
    """
    if find_spec("optuna") is None:
        raise UserError("reflux tune needs the package optuna: `pip install optuna`.")
    request = {"ends": ends, "objectives": objectives, "workers": workers}
    with tracking.courier():
        code, lines = follow(_NAME, [sys.executable, "-m", "reflux.components.advice.tune", json.dumps(request)])
    if code == EXIT_USER_ERROR:
        raise UserError(own_sentence(lines))
    if code not in (0, EXIT_INTERRUPTED):
        raise UserError(f"The search has failed ({own_sentence(lines)}).")
    if code == 0:
        for problem in keep_boards(project, None):
            print(f"Note: {problem}.")
    return code == 0
