"""Register the student and decide on its promotion, when MLflow answers."""

import time
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import lineage
from reflux.components.core.runtime.journal import Journal, delivery
from reflux.components.registry import client, webhooks
from reflux.components.registry import register as registration
from reflux.components.registry.client import Unreachable
from reflux.components.registry.ledger.record import Grounds
from reflux.components.registry.promote import PromotionResult, challenge
from reflux.components.registry.register import Registered
from reflux.components.registry.versions.evaluated_run import Lineage
from reflux.flows.outcome import StageOutcome
from reflux.flows.pipeline.tasks import POLICY
from reflux.flows.report import text
from reflux.flows.report.display import Display
from reflux.flows.report.result import Release

_SECONDS_FOR_RUN_ID = 30.0


def release(params: Params, journal: Journal, display: Display, flow_run_id: str, patience_s: float = 0) -> Release:
    """Register what ``artifacts/`` holds, decide, and promote; a lost MLflow server skips what is left of it.

    Args:
        params: all of them.
        journal: of the pipeline run.
        display: follows the two steps.
        flow_run_id: in Prefect.
        patience_s: how long to wait for an MLflow server that does not answer.
    """
    registered = None
    webhooks.send()
    pauses = between_attempts(patience_s)
    patient: dict[str, Any] = {"retries": len(pauses), "retry_delay_seconds": pauses}
    try:
        display.begin("register")
        run = arrived(journal, patience_s)
        registered = register.with_options(**patient)(params, run, flow_run_id)
        display.end("register", StageOutcome.RAN if registered.created else StageOutcome.CACHED)
        display.begin("promote")
        promotion = promote.with_options(**patient)(params, registered.version)
        display.end("promote", StageOutcome.CACHED if promotion.existing else StageOutcome.RAN)
    except Unreachable as problem:
        for name in ("register", "promote")[registered is not None :]:
            display.close(name, "skipped")
        return Release(registered, None, str(problem))
    create_markdown_artifact(
        text.verdict(promotion), key="promotion", description=f"{params.registry.model_name} v{promotion.version}"
    )
    return Release(registered, promotion, None)


@task(name="register", task_run_name="register", **POLICY)
def register(params: Params, run: str, flow_run_id: str) -> Registered:
    """A model version with its whole lineage; the same evaluation is registered once."""
    sha = lineage.code().sha
    origin = Lineage(
        run_id=run,
        params_sha256=lineage.params_sha256(),
        data_md5=lineage.data_md5(),
        git_sha=None if sha == lineage.NONE else sha,
        flow_run_id=flow_run_id,
    )
    return registration.register(ARTIFACTS, params.registry.model_name, params.project.name, origin)


@task(name="promote", task_run_name="promote", **POLICY)
def promote(params: Params, version: int) -> PromotionResult:
    """The decision on a version, carried out."""
    return challenge(ARTIFACTS, params.project.name, params.registry.model_name, version, Grounds.of(params))


def between_attempts(patience_s: float) -> list[float]:
    """Seconds between attempts, growing to a minute, together at least ``patience_s``; one pause of 5 s in any case."""
    pauses = [5.0]
    while sum(pauses) < patience_s:
        pauses.append(min(2 * pauses[-1], 60.0))
    return pauses


def arrived(journal: Journal, patience_s: float) -> str:
    """The MLflow id of the parent run, as soon as MLflow has it.

    Raises:
        Unreachable: MLflow did not answer for so long.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(Unreachable),
        wait=wait_exponential(5, max=60),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    return attempts(_delivered, journal)


def _delivered(journal: Journal) -> str:
    """The MLflow id of the parent run, which the courier may still be delivering.

    Raises:
        Unreachable: MLflow does not answer.
    """
    mlflow = client.connect()
    with client.translate_errors():
        mlflow.search_experiments(max_results=1)
    deadline = time.monotonic() + _SECONDS_FOR_RUN_ID
    while not (run_id := delivery(journal.folder).get("run_id")):
        if time.monotonic() > deadline:
            raise Unreachable(f"MLflow at {client.address()} did not take this run: run `reflux run` again.")
        time.sleep(0.1)
    return str(run_id)
