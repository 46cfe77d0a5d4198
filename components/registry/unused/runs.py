"""Runs and LoggedModels in MLflow that nothing refers to, found and removed.

MLflow removes in two steps: what is deleted is only marked, and can be restored in its UI, until its files and rows are
removed for good, which takes access to its database.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.registry import client
from reflux.components.registry.ledger import lock
from reflux.components.registry.unused.references import References, every
from reflux.components.registry.versions import device_reports
from reflux.components.registry.versions.logged_models import STUDENT, TEACHER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

MARK = "reflux.removed"  # a tag: of what a person deleted in the UI, nothing is removed for good
LAST = 50  # runs of each experiment that stay however old they are, so that boards and numbers of retrains go on

_PARENT, _JOURNAL, _RESTORED = "mlflow.parentRunId", "reflux.journal", "restored."
_FLOW_RUN = "prefect.flow_run_id"
# Studies may be in a database or on a machine that this one does not see; the ledger is the record.
_NEVER = ("tune", "tune trial", "promotion")


@dataclass(frozen=True)
class Unused:
    """Runs, children before their parents, and LoggedModels that nothing refers to."""

    runs: list["Run"]
    models: list["LoggedModel"]


def find(
    mlflow: "MlflowClient",
    experiments: Sequence[str],
    kept: References,
    present: Collection[str],
    before: datetime,
) -> Unused:
    """Find runs of Reflux and LoggedModels, all from before a time, that nothing refers to.

    A run goes with its children and its parent, or not at all.

    Args:
        mlflow: the client.
        experiments: their names.
        kept: what must stay.
        present: the runs that made the present artifacts.
        before: which everything must have ended.
    """
    runs, models = list["Run"](), list["LoggedModel"]()
    for name in experiments:
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            continue
        ids = [experiment.experiment_id]
        families = _families(every(lambda token: mlflow.search_runs(ids, page_token=token)))  # noqa: B023 - at once
        stay = _staying(families, kept, {*kept.runs, *present}, before)
        runs += [run for root, family in families.items() if root not in stay for run in family]
        logged = every(lambda token: mlflow.search_logged_models(ids, page_token=token))  # noqa: B023 - at once
        models += [model for model in logged if _may_go(model, kept.models, before)]
    return Unused(runs, models)


def mark(mlflow: "MlflowClient", model_name: str, find_again: Callable[[], Unused]) -> None:
    """Delete runs and LoggedModels as MLflow does, so that they can still be restored.

    Args:
        mlflow: the client.
        model_name: whose lock is held meanwhile, so that no version that begins to refer to them is registered.
        find_again: under the lock.
    """
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    with client.translate_errors(), lock.held(mlflow, model_name) as check:
        unused = find_again()
        for run in unused.runs:
            check()
            mlflow.set_tag(run.info.run_id, MARK, at)
            mlflow.delete_run(run.info.run_id)
        for model in unused.models:
            check()
            mlflow.set_logged_model_tags(model.model_id, {MARK: at})
            mlflow.delete_logged_model(model.model_id)


def marked(mlflow: "MlflowClient", experiments: Sequence[str]) -> Unused:
    """List what :func:`mark` has deleted and is not removed for good yet; nothing where MLflow is a server."""
    from mlflow.entities import ViewType

    store = _database(mlflow)
    found = [mlflow.get_experiment_by_name(name) for name in experiments]
    ids = [experiment.experiment_id for experiment in found if experiment is not None]
    if store is None or not ids:
        return Unused([], [])
    where = f"tags.`{MARK}` LIKE '%'"
    runs = every(lambda token: mlflow.search_runs(ids, where, ViewType.DELETED_ONLY, page_token=token))
    deleted = [store.get_logged_model(each, allow_deleted=True) for each in store._get_deleted_logged_models()]
    return Unused(runs, [model for model in deleted if model.experiment_id in ids and MARK in model.tags])


def purge(mlflow: "MlflowClient", unused: Unused) -> None:
    """Remove for good what is marked, as ``mlflow gc`` does.

    That command itself would also remove what people have deleted: all experiments in the trash.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = _database(mlflow)
    with client.translate_errors():
        for run in unused.runs:
            get_artifact_repository(run.info.artifact_uri).delete_artifacts()
            store._hard_delete_run(run.info.run_id)
        for model in unused.models:
            get_artifact_repository(model.artifact_location).delete_artifacts()
            store._hard_delete_logged_model(model.model_id)


def flow_runs(mlflow: "MlflowClient", experiments: Sequence[str]) -> set[str]:
    """The ids of the flow runs in Prefect that runs of these experiments belong to."""
    found = [mlflow.get_experiment_by_name(name) for name in experiments]
    ids = [experiment.experiment_id for experiment in found if experiment is not None]
    where = f"tags.`{_FLOW_RUN}` LIKE '%'"
    runs = every(lambda token: mlflow.search_runs(ids, where, page_token=token)) if ids else []
    return {run.data.tags[_FLOW_RUN] for run in runs}


def size(locations: Iterable[str]) -> int | None:
    """The bytes of artifacts on this machine's disk; None if some are elsewhere."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    total = 0
    for location in locations:
        if not is_local_uri(location, is_tracking_or_registry_uri=False):
            return None
        files = Path(local_file_uri_to_path(location)).rglob("*")
        total += sum(file.stat().st_size for file in files if file.is_file())
    return total


def is_server(mlflow: "MlflowClient") -> bool:
    """Tell whether MLflow is a server, of which only its host can remove anything for good."""
    return _database(mlflow) is None


def _database(mlflow: "MlflowClient") -> Any:
    """MLflow's store, where this process has its database; None where it asks a server."""
    store = mlflow._tracking_client.store
    return store if hasattr(store, "_hard_delete_run") else None


def _families(runs: Sequence["Run"]) -> dict[str, list["Run"]]:
    """Runs by the id of the run at their top, which comes last, the newest family first."""
    parents = {run.info.run_id: run.data.tags.get(_PARENT) for run in runs}

    def top(run_id: str) -> str:
        parent = parents[run_id]
        return top(parent) if parent is not None and parent in parents else run_id

    def order(run: "Run") -> tuple[str, bool]:
        run_id = run.info.run_id
        return top(run_id), top(run_id) == run_id

    grouped = groupby(sorted(runs, key=order), key=lambda run: top(run.info.run_id))
    families = [(root, list(family)) for root, family in grouped]
    return dict(sorted(families, key=lambda each: each[1][-1].info.start_time, reverse=True))


def _staying(
    families: Mapping[str, Sequence["Run"]], kept: References, runs: Collection[str], before: datetime
) -> set[str]:
    """The top runs of the families that stay, with the families whose results they restored."""
    homes = {run.info.run_id: root for root, family in families.items() for run in family}
    homes |= {
        f"{_JOURNAL}={run.data.tags[_JOURNAL]}": root
        for root, family in families.items()
        for run in family
        if _JOURNAL in run.data.tags
    }
    last = set(list(families)[:LAST])
    stay = {
        root
        for root, family in families.items()
        if root in last or any(run.info.run_id in runs or _stays(run, kept, before) for run in family)
    }
    waiting = list(stay)
    while waiting:
        tags = [run.data.tags for run in families[waiting.pop()]]
        restored = {value for each in tags for name, value in each.items() if name.startswith(_RESTORED)}
        new = {homes[value] for value in restored if value in homes} - stay
        stay |= new
        waiting += new
    return stay


def _stays(run: "Run", kept: References, before: datetime) -> bool:
    """Tell whether a run stays by itself: as it is new, not ended, not of this program, or a report on a file."""
    kind, info = run.data.tags.get("run_kind"), run.info
    if kind is None or kind in _NEVER or info.status in ("RUNNING", "SCHEDULED"):
        return True
    if kind == device_reports.KIND and run.data.params.get(device_reports.SHA256) in kept.files:
        return True
    return (info.end_time or info.start_time) >= before.timestamp() * 1000


def _may_go(model: "LoggedModel", kept: Collection[str], before: datetime) -> bool:
    ours = model.name in (STUDENT, TEACHER)
    return ours and model.model_id not in kept and model.creation_timestamp < before.timestamp() * 1000
