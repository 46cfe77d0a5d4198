"""Register the student and decide on its promotion, when MLflow answers."""

import time
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from components.core.artifacts import ARTIFACTS
from components.core.params.sections import Params
from components.core.runtime import lineage
from components.core.runtime.journal import Journal, delivery
from components.registry import client, webhooks
from components.registry import promote as promotion
from components.registry import register as registration
from components.registry.client import Unreachable
from components.registry.promote import PromotionResult
from components.registry.register import Registered
from components.registry.versions.evaluated_run import Lineage
from flows.commands.registry import terms
from flows.dvc.stages import Outcome
from flows.report import text
from flows.report.display import Display

_SECONDS_FOR_RUN_ID = 30.0


@dataclass(frozen=True)
class Release:
    """What became of the student.

    Attributes:
        registered: its version; None when MLflow did not answer.
        promotion: the decision on it; None when MLflow did not answer.
        problem: one sentence on why it is not registered or not decided on, and what to do; else None.
    """

    registered: Registered | None
    promotion: PromotionResult | None
    problem: str | None


def release(params: Params, journal: Journal, shown: Display, flow_run_id: str, patience_s: float = 0) -> Release:
    """Register what ``artifacts/`` holds, decide, and promote; a lost MLflow server skips what is left of it.

    Args:
        params: all of them.
        journal: of the pipeline run.
        shown: is told of the two steps.
        flow_run_id: in Prefect.
        patience_s: how long an MLflow server that does not answer is waited for.
    """
    registered = None
    webhooks.send()
    pauses = between_attempts(patience_s)
    try:
        shown.begin("register")
        run = arrived(journal, pauses if patience_s else [])
        registered = register.with_options(retries=len(pauses), retry_delay_seconds=pauses)(params, run, flow_run_id)
        shown.end("register", Outcome.RAN if registered.created else Outcome.CACHED)
        shown.begin("promote")
        promotion = promote.with_options(retries=len(pauses), retry_delay_seconds=pauses)(params, registered.version)
        shown.end("promote", Outcome.CACHED if promotion.existing else Outcome.RAN)
    except Unreachable as problem:
        for name in ("register", "promote")[registered is not None :]:
            shown.close(name, "skipped")
        return Release(registered, None, str(problem))
    create_markdown_artifact(
        text.verdict(promotion), key="promotion", description=f"{params.registry.model_name} v{promotion.version}"
    )
    return Release(registered, promotion, None)


def can_pass_by_itself(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only a server that is away is worth another try."""
    return isinstance(state.result(raise_on_failure=False), Unreachable)


@task(
    name="register",
    task_run_name="register",
    cache_policy=NO_CACHE,
    retry_condition_fn=can_pass_by_itself,
)
def register(params: Params, run: str, flow_run_id: str) -> Registered:
    """A model version with its whole lineage; the same evaluation is registered once."""
    origin = Lineage(
        run_id=run,
        params_sha256=lineage.params_sha256(),
        data_md5=lineage.data_md5(),
        git_sha=known(lineage.code().sha),
        flow_run_id=flow_run_id,
    )
    return registration.register(ARTIFACTS, params.registry.model_name, params.project.name, origin)


@task(
    name="promote",
    task_run_name="promote",
    cache_policy=NO_CACHE,
    retry_condition_fn=can_pass_by_itself,
)
def promote(params: Params, version: int) -> PromotionResult:
    """The decision on a version, carried out."""
    return promotion.challenge(ARTIFACTS, version=version, approval=params.registry.approval, **terms(params))


def between_attempts(patience_s: float) -> list[float]:
    """Seconds between attempts, growing to a minute, together at least ``patience_s``; one pause of 5 s in any case."""
    pauses = [5.0]
    while sum(pauses) < patience_s:
        pauses.append(min(2 * pauses[-1], 60.0))
    return pauses


def arrived(journal: Journal, pauses: list[float]) -> str:
    """The MLflow id of the parent run, as soon as it is known there.

    Raises:
        Unreachable: MLflow did not answer for as long as the pauses are together.
    """
    for pause in pauses:
        try:
            return run_id(journal)
        except Unreachable:
            time.sleep(pause)
    return run_id(journal)


def run_id(journal: Journal) -> str:
    """The MLflow id of the parent run, which the courier may still be delivering.

    Raises:
        Unreachable: MLflow does not answer.
    """
    mlflow = client.connect()
    with client.translate_errors():
        mlflow.search_experiments(max_results=1)
    deadline = time.monotonic() + _SECONDS_FOR_RUN_ID
    while not (found := delivery(journal.folder).get("run_id")):
        if time.monotonic() > deadline:
            raise Unreachable(f"MLflow at {client.address()} did not take this run: run `reflux run` again.")
        time.sleep(0.1)
    return str(found)


def known(value: str) -> str | None:
    """A lineage value, or None for one that is missing."""
    return None if value == lineage.NONE else value
