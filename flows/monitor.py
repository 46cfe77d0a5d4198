"""The monitor flow: has new data arrived since the champion was made, and is it like the champion's?"""

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

from components.core.artifacts import ARTIFACTS
from components.core.errors import UserError
from components.core.params.file import load_params
from components.core.params.sections import Params
from components.core.runtime import tracking
from components.monitor import reference, report, shift
from components.monitor.reference import Ids, Sample
from components.monitor.report import Check
from components.registry import client
from components.registry.client import CHAMPION
from components.registry.versions.files import fetch_files
from flows.dvc import dataset
from flows.dvc.checkout import prepare_dvc
from flows.pipeline.clone import ingest, require_tracking, skipped
from flows.report import flow_page

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RETRAIN = "retrain/retrain"
_WAITING = ["SCHEDULED", "PENDING", "RUNNING"]


@flow(name="monitor")
def monitor() -> Check | State[None]:
    """Compare the data at its source with the champion's, and ask for a retrain when enough checks say so.

    Returns:
        The check; a completed state named Skipped when there is nothing to compare.
    """
    logger, params = get_run_logger(), load_params()
    require_tracking()
    prepare_dvc()
    mlflow, model = client.connect(), params.registry.model_name
    champion = client.retry(lambda: _champion(mlflow, model))
    if champion is None:
        return skipped(params, f"{model} has no champion to compare with.", logger)
    version, now = int(champion.version), dataset.version(params.ingest.source)
    if champion.tags.get("dvc.data_md5") == now:
        return skipped(params, f"The data ({now[:12]}) is that of the champion, {model} version {version}.", logger)
    kept = client.retry(lambda: _reference(champion))
    if kept is None:
        return skipped(params, f"{model} version {version} was registered without a reference of its data.", logger)
    ingest(params, logger)
    old, ids = kept
    new, count = _sample(champion, ids, params.seed)
    if new.shape != old.shape:
        return skipped(params, f"Images are {new.shape} now and were {old.shape}: retrain, then compare.", logger)
    tests = shift.compare(old, new, params.monitor.alpha, params.seed)
    says = any(test.differs for test in tests)
    votes = [says, *client.retry(lambda: _votes(mlflow, params, version))]
    wanted = sum(votes) >= params.monitor.n
    action = ask(f"{model}:{version}:{now}") if wanted else "Nothing is done about it yet." if says else "All is well."
    check = Check(version, now, count, tests, votes, action)
    _record(mlflow, params, check, old, new)
    _show(params, check)
    logger.info("%s", report.headline(check, params.monitor.m))
    return check


def ask(key: str) -> str:
    """Have a retrain run once for a key, unless one runs or waits already.

    Args:
        key: names the champion and the data; whoever asks again for the same gets no second run.

    Returns:
        What was done, in one sentence.

    Raises:
        UserError: there is no deployment of the retrain flow.
    """
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(RETRAIN)
        except ObjectNotFound:
            raise UserError(f"Prefect has no deployment {RETRAIN} that could be run: run `reflux deploy`.") from None
        of_it = DeploymentFilter(id={"any_": [deployment.id]})
        asked = client.read_flow_runs(
            deployment_filter=of_it, flow_run_filter=FlowRunFilter(idempotency_key={"any_": [key]}), limit=1
        )
        if asked:
            return f"A retrain on this data was asked for before: {asked[0].name}."
        if busy := _waiting(client, of_it):
            return f"No retrain is asked for, as {busy.name} runs or waits already."
        run = client.create_flow_run_from_deployment(deployment.id, idempotency_key=key, tags=["monitor"])
        return f"A retrain is asked for: {run.name}."


def _waiting(client: SyncPrefectClient, of_it: DeploymentFilter) -> FlowRun | None:
    """A run that is at work or could be; what the schedule plans for later is neither."""
    found = client.read_flow_runs(
        deployment_filter=of_it, flow_run_filter=FlowRunFilter(state={"type": {"any_": _WAITING}})
    )
    now = datetime.now(UTC)
    return next((run for run in found if not run.auto_scheduled or (run.expected_start_time or now) <= now), None)


def _champion(mlflow: "MlflowClient", model_name: str) -> "ModelVersion | None":
    if not mlflow.search_model_versions(f"name = '{model_name}'", max_results=1):
        return None
    number = client.aliases(mlflow, model_name).get(CHAMPION)
    return None if number is None else client.version(mlflow, model_name, number)


def _reference(champion: "ModelVersion") -> tuple[Sample, Ids] | None:
    """What the champion was made of, as its retrain left it in MLflow."""
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
    """The images that the champion's data did not have, as it sees them, and how many they are."""
    classes, shards = reference.open_dataset(ARTIFACTS)
    images, counts, new = reference.sample(shards, classes, known, seed)
    with client.translate_errors(), fetch_files(champion) as version:
        network = version.network()
        predictions = reference.predictions(network.logits(images)) if len(images) else reference.NO_PREDICTIONS
    return Sample(classes, images.shape[1:], counts, reference.statistics(images), *predictions), new


def _experiment(params: Params) -> str:
    return f"{params.project.name}/monitor"


def _votes(mlflow: "MlflowClient", params: Params, champion: int) -> list[bool]:
    """What the checks before this one said of the same champion, the newest first."""
    experiment = tracking.experiment_id(mlflow, _experiment(params))
    if (most := params.monitor.m - 1) == 0:
        return []
    found = mlflow.search_runs(
        [experiment],
        f"tags.champion = '{champion}' AND tags.model = '{params.registry.model_name}'",
        max_results=most,
        order_by=["attributes.start_time DESC"],
    )
    return [run.data.tags["differs"] == "true" for run in found]


def _record(mlflow: "MlflowClient", params: Params, check: Check, old: Sample, new: Sample) -> None:
    """Write the check down: a run in MLflow with its figures, table and picture."""
    text = report.markdown(check, params.monitor)
    tags = {"run_kind": "monitor", "model": params.registry.model_name, "champion": str(check.champion)}
    tags |= {"dvc.data_md5": check.data_md5, "differs": str(check.votes[0]).lower(), "mlflow.note.content": text}
    with client.translate_errors():
        experiment = tracking.experiment_id(mlflow, _experiment(params))
        id = mlflow.create_run(experiment, tags=tags, run_name=f"monitor-{datetime.now(UTC):%Y%m%d-%H%M%S}").info.run_id
        for metric, value in report.metrics(check).items():
            mlflow.log_metric(id, metric, value)
        mlflow.log_text(id, text, "drift.md")
        mlflow.log_figure(id, report.figure(old, new, check.tests), "drift.png")
        mlflow.set_terminated(id)


def _show(params: Params, check: Check) -> None:
    """Put the check on the flow run's page, and name the run by it."""
    headline = report.headline(check, params.monitor.m)
    create_markdown_artifact(report.markdown(check, params.monitor), key="drift", description=headline)
    create_table_artifact(report.rows(check.tests), key="drift-table")
    differs = sum(test.differs for test in check.tests)
    flow_page.rename(params.project.name, f"{check.new} new, {differs} of {len(check.tests)} differ")
