"""Setup shared by flows that run in a worker's clone."""

import logging
from typing import Any

from prefect import runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, tracking
from reflux.components.core.runtime.journal import COURIER_VARIABLE
from reflux.flows.local.environment import embed_mlflow
from reflux.flows.outcome import StageOutcome
from reflux.flows.pipeline.tasks import push
from reflux.flows.repo import remote
from reflux.flows.repo.dataset import fetch
from reflux.flows.repo.stages import Runner
from reflux.flows.report import flow_page
from reflux.flows.report.display import Display


def require_tracking() -> None:
    """Refuse to run in a clone that is deleted when no server keeps its results.

    Raises:
        UserError: the worker has no MLFLOW_TRACKING_URI.
    """
    if runtime.deployment.id and not tracking.uri():
        raise UserError(
            "MLFLOW_TRACKING_URI is not set where this worker runs, and its clone is deleted after the run, so nothing "
            "would be kept: set it in the worker's environment."
        )


def flow_run_id() -> str:
    """The id of the present flow run in Prefect."""
    return str(runtime.flow_run.id)


def skipped(params: Params, why: str, logger: "logging.Logger | logging.LoggerAdapter[Any]") -> State[None]:
    """The state of a run that has nothing to do."""
    logger.info("Skipped: %s", why)
    flow_page.rename(params.project.name, "skipped")
    return Completed(name="Skipped", message=why)


def ingest(params: Params, logger: "logging.Logger | logging.LoggerAdapter[Any]") -> None:
    """Ingest the present data, or restore what another worker has ingested; the next retrain restores it as well.

    Raises:
        UserError: the dataset is not here and can't be pulled.
        StageFailed: it can't be ingested.
    """
    fetch(params.datasets)
    installed.record(params, ["ingest"])
    store = remote.name()
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1"}
    with tracking.courier(), Runner(Display(lambda _: None, logger), environment, pull=store is not None) as runner:
        outcome = runner.run("ingest")
    if store is not None and outcome is StageOutcome.RAN:
        push(store, "ingest")
