"""Keep the boards in MLflow current: ``reflux run`` and ``reflux boards`` do."""

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking
from reflux.components.observe.boards.declared import BOARDS, PICTURES, PIPELINES, STUDENTS
from reflux.components.observe.boards.view import TAG, Board, TooLarge
from reflux.components.registry import client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

VERSIONS_TAG = "reflux.boards"
_NOTE, _OURS = "mlflow.note.content", "<!-- Reflux keeps what stands above; what you write below stays. -->"
_OLDEST_WITH_VIEWS = (3, 15)
_RUNS_LOOKED_AT = 50


def keep(experiment_name: str, champion: str | None) -> list[str]:
    """Write the boards that are new or have changed, and the experiment's note; views that people made stay.

    Args:
        experiment_name: as MLflow knows it.
        champion: what is in production, a sentence of Markdown for the note; None leaves the note unchanged.

    Returns:
        A sentence for each thing that could not be done; none is worth failing a run.
    """
    from mlflow.exceptions import MlflowException

    try:
        with client.translate_errors():
            mlflow = tracking.client()
            experiment = mlflow.get_experiment_by_name(experiment_name)
            if experiment is None:
                return []
            if too_old := _too_old():
                if champion is not None:
                    _set(mlflow, experiment, _NOTE, note(experiment, champion, ()))
                return [f"{too_old}: there are no boards"]
            versions = _read(experiment.tags.get(VERSIONS_TAG, "{}"))
            retrains = _runs(mlflow, experiment, PIPELINES)
            kept = [_keep(mlflow, experiment, board, versions, retrains) for board in BOARDS.values()]
            _set(mlflow, experiment, VERSIONS_TAG, json.dumps(versions))
            if champion is not None:
                _set(mlflow, experiment, _NOTE, note(experiment, champion, tuple(BOARDS.values())))
            return [problem for problems in kept for problem in problems]
    except (MlflowException, UserError) as error:
        return [f"MLflow took no boards ({str(error).splitlines()[0]})"]


def links(experiment_id: str, address: str) -> list[tuple[str, str, str]]:
    """Name, address and purpose of each board; ``address`` is that of MLflow's page."""
    return [
        (board.name, f"{address.rstrip('/')}/{board.link(experiment_id)}", board.shows) for board in BOARDS.values()
    ]


def note(experiment: Any, champion: str, boards: Sequence[Board]) -> str:
    """Write the experiment's note: the boards' links come first, as MLflow shows one line of a folded note.

    What people wrote below the marker, or before there was one, stays.
    """
    first = " · ".join(f"[{board.name}]({board.link(experiment.experiment_id)})" for board in boards)
    before = experiment.tags.get(_NOTE, "")
    theirs = before.partition(_OURS)[2] if _OURS in before else f"\n\n{before}" if before else ""
    return "\n\n".join([f"Boards: {first}"] * bool(boards) + [champion, _OURS]) + theirs


def _keep(
    mlflow: "MlflowClient",
    experiment: Any,
    board: Board,
    versions: dict[str, tuple[int, str]],
    retrains: list["Run"],
) -> list[str]:
    """Write one board if it has changed; returns a sentence for each thing that could not be done."""
    runs = retrains if board.runs == PIPELINES else _runs(mlflow, experiment, board.runs)
    # Many trials of a search must not hide what the retrains next to them have.
    present = _metrics([*runs, *retrains] if board.runs == STUDENTS else runs)
    hidden = present | _metrics(retrains)  # MLflow shows child runs with their parents
    version, digest = versions.get(board.slug, (0, ""))
    version += digest != board.digest()
    try:
        view = board.view(version, hidden, PICTURES, _since_ms(runs, board.newest), int(time.time() * 1000))
    except TooLarge as error:
        return [f"A board was not updated: {error}"]
    kept = experiment.tags.get(TAG + board.slug, "{}")
    if _without_times(kept) != _without_times(view):
        mlflow.set_experiment_tag(experiment.experiment_id, TAG + board.slug, view)
    versions[board.slug] = (version, board.digest())
    lacking = sorted(board.metrics() - present - set(board.may_lack))
    return [f"No run has {', '.join(lacking)}, which the board {board.name} shows"] if present and lacking else []


def _runs(mlflow: "MlflowClient", experiment: Any, filter_string: str) -> list["Run"]:
    """The latest runs, newest first."""
    return list(mlflow.search_runs([experiment.experiment_id], filter_string, max_results=_RUNS_LOOKED_AT))


def _since_ms(runs: Sequence["Run"], newest: int) -> int:
    """When the first of these runs that belongs to the newest retrains began; a retrain may have trained nothing."""
    retrains: set[str] = set()
    since = 0
    for run in runs:
        retrains.add(run.data.tags.get("mlflow.parentRunId", run.info.run_id))
        if len(retrains) > newest:
            break
        since = run.info.start_time
    return since


def _metrics(runs: Sequence["Run"]) -> frozenset[str]:
    return frozenset().union(*(run.data.metrics for run in runs))


def _set(mlflow: "MlflowClient", experiment: Any, key: str, value: str) -> None:
    if experiment.tags.get(key) != value:
        mlflow.set_experiment_tag(experiment.experiment_id, key, value)


def _without_times(view: str) -> dict[str, Any]:
    return {key: value for key, value in _read(view).items() if not key.endswith("At")}


def _read(text: str) -> dict[str, Any]:
    """A tag's JSON object; empty if a person has edited it to something else, so that it is written anew."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _too_old() -> str | None:
    """A sentence if the server is older than saved views."""
    uri = tracking.uri() or ""
    if not uri.startswith("http"):
        return None
    import requests

    version = requests.get(f"{uri.rstrip('/')}/version", timeout=10).text.strip()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) >= _OLDEST_WITH_VIEWS:
        return None
    return f"MLflow {version} at {tracking.without_secrets(uri)} knows no saved views, which came with 3.15"
