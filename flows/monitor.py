"""The monitor flow: compare new data with the champion's, and start a retrain when they differ."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound

from reflux.components.core import shift
from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Monitor, Params
from reflux.components.core.runtime import tracking
from reflux.components.core.shift import Ids, Sample
from reflux.components.observe.monitor import reference, report
from reflux.components.observe.monitor.report import Check
from reflux.components.registry import client
from reflux.components.registry.client import CHAMPION
from reflux.components.registry.versions.files import fetch_files
from reflux.flows.local.environment import keep_home
from reflux.flows.local.pipelines import artifact_key, enter, suffixed
from reflux.flows.pipeline.clone import flow_run_id, ingest, require_tracking, skipped
from reflux.flows.repo import dataset
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.report import flow_page

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RETRAIN = "retrain/retrain"
_ACTIVE = ["SCHEDULED", "PENDING", "RUNNING"]


@flow(name="monitor")
def monitor(pipeline: str = "") -> Check | State[None]:
    """Compare the data at its source with the champion's, and start a retrain when enough checks found a difference.

    Args:
        pipeline: its name; empty for that of the project's root.

    Returns:
        The check; a completed state named Skipped when there is nothing to compare.
    """
    enter(pipeline)
    logger, params = get_run_logger(), load_params()
    keep_home(params.project.name, flow_run_id())
    require_tracking()
    prepare_dvc()
    mlflow, model = client.connect(), params.registry.model_name
    champion = client.retry(lambda: _champion(mlflow, model))
    if champion is None:
        return skipped(params, f"{model} has no champion to compare with.", logger)
    version, now = int(champion.version), dataset.version(params.ingest.source)
    if champion.tags.get("dvc.data_md5") == now:
        return skipped(params, f"The data ({now[:12]}) is that of the champion, {model} version {version}.", logger)
    champions = client.retry(lambda: _reference(champion))
    if champions is None:
        return skipped(params, f"{model} version {version} was registered without a reference of its data.", logger)
    ingest(params, logger)
    old, ids = champions
    new, count = _sample(champion, ids, params.seed)
    if new.shape != old.shape:
        return skipped(params, f"Images are {new.shape} now and were {old.shape}: retrain, then compare.", logger)
    before = client.retry(lambda: _votes(mlflow, params, version))
    tests, votes, enough = judge(old, new, before, params.monitor, params.seed)
    if enough:
        action = start_retrain(f"{model}:{version}:{now}")
    else:
        action = "No retrain is started yet." if votes[0] else "All is well."
    check = Check(version, now, count, tests, votes, action)
    _record(mlflow, params, check, old, new)
    _show(params, check)
    logger.info("%s", report.headline(check, params.monitor.m))
    return check


def judge(
    old: Sample, new: Sample, before: list[bool], rules: Monitor, seed: int
) -> tuple[list[shift.ShiftTest], list[bool], bool]:
    """Compare two samples, and decide whether enough checks found a difference.

    Args:
        old: of the champion's data.
        new: of the images since.
        before: whether the previous checks found a difference, the newest first.
        rules: the section ``monitor`` of the params.
        seed: of the Monte Carlo tests.

    Returns:
        The tests, whether each check found a difference, this one first, and whether a retrain is due.
    """
    tests = shift.compare(old, new, rules.alpha, seed)
    votes = [any(test.differs for test in tests), *before]
    return tests, votes, sum(votes) >= rules.n


def start_retrain(key: str) -> str:
    """Start a retrain once for a key, unless one is running or waiting already.

    Args:
        key: the champion and the data; for the same key no second run is started.

    Returns:
        What was done, in one sentence.

    Raises:
        UserError: there is no deployment of the retrain flow.
    """
    name = suffixed(RETRAIN)
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise UserError(f"Prefect has no deployment {name}: run `reflux deploy`.") from None
        by_deployment = DeploymentFilter(id={"any_": [deployment.id]})
        by_key = FlowRunFilter(idempotency_key={"any_": [key]})
        if before := client.read_flow_runs(deployment_filter=by_deployment, flow_run_filter=by_key, limit=1):
            return f"A retrain on this data was started before: {before[0].name}."
        if active := _active(client, by_deployment):
            return f"No retrain is started, because {active.name} is running or waiting already."
        run = client.create_flow_run_from_deployment(deployment.id, idempotency_key=key, tags=["monitor"])
        return f"A retrain is started: {run.name}."


def _active(client: SyncPrefectClient, by_deployment: DeploymentFilter) -> FlowRun | None:
    """A run that is running, or waits for a worker; not one that is scheduled for later."""
    by_state = FlowRunFilter(state={"type": {"any_": _ACTIVE}})
    runs = client.read_flow_runs(deployment_filter=by_deployment, flow_run_filter=by_state)
    now = datetime.now(UTC)
    return next((run for run in runs if not run.auto_scheduled or (run.expected_start_time or now) <= now), None)


def _champion(mlflow: "MlflowClient", model_name: str) -> "ModelVersion | None":
    if not mlflow.search_model_versions(f"name = '{model_name}'", max_results=1):
        return None
    number = client.aliases(mlflow, model_name).get(CHAMPION)
    return None if number is None else client.version(mlflow, model_name, number)


def _reference(champion: "ModelVersion") -> tuple[Sample, Ids] | None:
    """The statistics of the champion's data, as its retrain logged them to MLflow."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        try:
            path = mlflow.artifacts.download_artifacts(
                run_id=champion.tags["run_id"], artifact_path=reference.FILE, dst_path=folder
            )
        except (KeyError, OSError):
            return None
        except MlflowException as error:
            if client.is_not_found(error):
                return None
            raise
        return reference.load(Path(path))


def _sample(champion: "ModelVersion", known: Ids, seed: int) -> tuple[Sample, int]:
    """A sample of the images that are new since the champion, and how many there are."""
    classes, shards = reference.open_dataset(ARTIFACTS)
    images, counts, new = shift.sample(shards, classes, known, seed)
    with client.translate_errors(), fetch_files(champion) as version:
        network = version.network()
        predictions = shift.predictions(network.logits(images)) if len(images) else shift.NO_PREDICTIONS
    return Sample(classes, images.shape[1:], counts, shift.statistics(images), *predictions), new


def _votes(mlflow: "MlflowClient", params: Params, champion: int) -> list[bool]:
    """Whether the previous checks of the same champion found a difference, the newest first."""
    experiment = tracking.experiment_id(mlflow, report.experiment(params.project.name))
    if (limit := params.monitor.m - 1) == 0:
        return []
    runs = mlflow.search_runs(
        [experiment],
        f"tags.champion = '{champion}' AND tags.model = '{params.registry.model_name}'",
        max_results=limit,
        order_by=["attributes.start_time DESC"],
    )
    return [run.data.tags["differs"] == "true" for run in runs]


def _record(mlflow: "MlflowClient", params: Params, check: Check, old: Sample, new: Sample) -> None:
    """Log the check to MLflow: a run with its figures, table and picture."""
    text = report.markdown(check, params.monitor)
    tags = {"run_kind": "monitor", "model": params.registry.model_name, "champion": str(check.champion)}
    tags |= {"dvc.data_md5": check.data_md5, "differs": str(check.votes[0]).lower(), "mlflow.note.content": text}
    with client.translate_errors():
        experiment = tracking.experiment_id(mlflow, report.experiment(params.project.name))
        name = f"monitor-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        run_id = mlflow.create_run(experiment, tags=tags, run_name=name).info.run_id
        for metric, value in report.metrics(check).items():
            mlflow.log_metric(run_id, metric, value)
        mlflow.log_text(run_id, text, "drift.md")
        mlflow.log_figure(run_id, report.figure(old, new, check.tests), "drift.png")
        mlflow.set_terminated(run_id)


def _show(params: Params, check: Check) -> None:
    """Show the check on the flow run's page, and rename the run after it."""
    headline = report.headline(check, params.monitor.m)
    create_markdown_artifact(report.markdown(check, params.monitor), key=artifact_key("drift"), description=headline)
    create_table_artifact(report.rows(check.tests), key=artifact_key("drift-table"))
    differs = sum(test.differs for test in check.tests)
    flow_page.rename(params.project.name, f"{check.new} new, {differs} of {len(check.tests)} differ")
