"""The state of a project that is worth an alert, read from MLflow and from where events wait; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.observe.monitor import report
from reflux.components.registry import client, webhooks
from reflux.components.registry.client import CHAMPION
from reflux.components.registry.history import by_hand
from reflux.components.registry.ledger import ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_DISTANCE = "distance/"


@dataclass(frozen=True)
class Champion:
    """The version in production.

    Attributes:
        registered_at: in seconds since 1970, by MLflow's clock.
        accuracy: on the frozen test split, when it was registered; None for a version of an older release.
        size_bytes: of the file that ships; likewise.
    """

    version: int
    registered_at: float
    accuracy: float | None
    size_bytes: float | None


@dataclass(frozen=True)
class Decision:
    """The newest finished attempt in the ledger, also a rollback; ``at`` is in seconds since 1970."""

    outcome: str
    at: float


@dataclass(frozen=True)
class Attempts:
    """What in the ledger a person should look at; times are in seconds since 1970.

    Attributes:
        opened: when each open attempt began.
        failed_at: when one was last closed as failed, as it could not be settled; None if none was.
        by_hand: aliases that are not where the ledger's last move has put them; None while an attempt is open, which
            may have moved them.
    """

    opened: tuple[float, ...]
    failed_at: float | None
    by_hand: int | None


@dataclass(frozen=True)
class Events:
    """Events of the registry that its receivers have not taken.

    Attributes:
        waiting: those that are sent again.
        oldest: of them, in seconds since 1970; None for none.
        refused: those that a receiver refused for what is in them.
    """

    waiting: int
    oldest: float | None
    refused: int = 0


@dataclass(frozen=True)
class Retrain:
    """The newest pipeline run that has ended.

    Attributes:
        status: MLflow's: FINISHED, FAILED or KILLED.
        ended_at: in seconds since 1970.
        duration_s: from its beginning to its end.
    """

    status: str
    ended_at: float
    duration_s: float


@dataclass(frozen=True)
class Drift:
    """The newest check of the monitor flow on the present champion.

    Attributes:
        at: in seconds since 1970.
        differs: whether new images differ from the champion's data.
        new_images: images that the champion's data did not have.
        distances: by what was compared, such as ``brightness``.
    """

    at: float
    differs: bool
    new_images: float
    distances: Mapping[str, float]


@dataclass(frozen=True)
class Snapshot:
    """A project at one moment; None for what there is not yet."""

    champion: Champion | None
    decision: Decision | None
    retrain: Retrain | None
    drift: Drift | None
    attempts: Attempts | None = None
    events: Events = Events(0, None)


def read(project: str, model_name: str, outboxes: Sequence[Path] = ()) -> Snapshot:
    """Read the present state.

    Args:
        project: ``project.name``, the experiment of its pipeline runs.
        model_name: the registered model.
        outboxes: the folders where events wait for their receivers.

    Raises:
        Unreachable: MLflow does not answer.
        UserError: none is configured, or the driver of its database is not installed.
    """
    mlflow = client.connect()
    with client.translate_errors():
        champion = _champion(mlflow, model_name)
        attempt = ledger.newest(mlflow, project, model_name)
        retrain = _newest(mlflow, project, "tags.run_kind = 'pipeline' AND attributes.status != 'RUNNING'")
        check = champion and _newest(
            mlflow,
            report.experiment(project),
            f"tags.champion = '{champion.version}' AND tags.model = '{model_name}'",
        )
        return Snapshot(
            champion=champion,
            decision=Decision(str(attempt.outcome), attempt.at.timestamp()) if attempt else None,
            retrain=_retrain(retrain) if retrain else None,
            drift=_drift(check) if check else None,
            attempts=_attempts(mlflow, project, model_name),
            events=events(outboxes),
        )


def events(outboxes: Sequence[Path]) -> Events:
    """Look at the events that wait."""
    # A file's name begins with the nanosecond in which the event was written.
    began = [int(path.name.split("-")[0]) / 1e9 for outbox in outboxes for path in webhooks.waiting(outbox)]
    return Events(len(began), min(began, default=None), sum(len(webhooks.refused(outbox)) for outbox in outboxes))


def _attempts(mlflow: "MlflowClient", project: str, model_name: str) -> Attempts | None:
    models = mlflow.search_registered_models(f"name = '{model_name}'", max_results=1)
    if not models:
        return None
    opened = ledger.opened(mlflow, project, model_name)
    failed, last = ledger.last_failure(mlflow, project, model_name), ledger.last_move(mlflow, project, model_name)
    aliases = {alias: int(number) for alias, number in models[0].aliases.items()}
    return Attempts(
        opened=tuple(at.timestamp() for at in opened),
        failed_at=failed.timestamp() if failed else None,
        by_hand=None if opened else len(by_hand([last] if last else [], aliases)),
    )


def _champion(mlflow: "MlflowClient", model_name: str) -> Champion | None:
    models = mlflow.search_registered_models(f"name = '{model_name}'", max_results=1)
    number = models[0].aliases.get(CHAMPION) if models else None
    if number is None:
        return None
    version = client.version(mlflow, model_name, int(number))
    return Champion(
        version=int(version.version),
        registered_at=version.creation_timestamp / 1000,
        accuracy=_number(version.tags.get("accuracy")),
        size_bytes=_number(version.tags.get("size_bytes")),
    )


def _newest(mlflow: "MlflowClient", experiment_name: str, condition: str) -> "Run | None":
    experiment = mlflow.get_experiment_by_name(experiment_name)
    if experiment is None:
        return None
    newest = ["attributes.start_time DESC"]
    runs = mlflow.search_runs([experiment.experiment_id], condition, max_results=1, order_by=newest)
    return runs[0] if runs else None


def _retrain(run: "Run") -> Retrain:
    return Retrain(
        status=run.info.status,
        ended_at=run.info.end_time / 1000,
        duration_s=(run.info.end_time - run.info.start_time) / 1000,
    )


def _drift(run: "Run") -> Drift:
    metrics = run.data.metrics
    return Drift(
        at=run.info.start_time / 1000,
        differs=run.data.tags["differs"] == "true",
        new_images=metrics.get("new_images", 0.0),
        distances={
            name.removeprefix(_DISTANCE): metrics[name] for name in sorted(metrics) if name.startswith(_DISTANCE)
        },
    )


def _number(text: str | None) -> float | None:
    """A figure that a tag holds; None where a person has written something else there."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
