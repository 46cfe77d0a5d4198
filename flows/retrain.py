"""The retrain flow: a task a stage, one parent run in MLflow, a decision at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State

from components.boards import declared
from components.core.artifacts import ARTIFACTS, read_json
from components.core.params.file import PARAMS, load_params, override_params
from components.core.params.sections import Params
from components.core.runtime import lineage, tracking
from components.core.runtime.journal import COURIER_VARIABLE, PARENT_VARIABLE, Journal, Status
from components.registry.ledger.ledger import AWAITING
from flows.commands.data import fetch
from flows.dvc import lock_branch, remote
from flows.dvc.stages import Outcome, Runner, unchanged
from flows.local.environment import embed_mlflow, keep_home, prepare_dvc
from flows.pipeline import approval, release, skip
from flows.pipeline import two_pools as elsewhere
from flows.pipeline.clone import require_tracking, skipped
from flows.pipeline.release import Release
from flows.pipeline.tasks import Pipeline, begin, outdated, stage, train
from flows.report import display, flow_page, mlflow_run
from flows.report.display import Display

_PATIENCE_S = 900.0  # a run that nobody watches waits for MLflow


@dataclass(frozen=True)
class Result:
    """What a pipeline run came to.

    Attributes:
        run_name: the parent run's name in MLflow.
        model_name: the registered model.
        outcomes: what DVC did for each stage.
        metrics: the content of ``metrics.json``.
        release: the registered version and the decision on it.
        seconds: the whole run's wall time.
    """

    run_name: str
    model_name: str
    outcomes: dict[str, Outcome]
    metrics: dict[str, Any]
    release: Release
    seconds: float

    @property
    def trained(self) -> bool:
        """Whether any stage was executed, not restored."""
        return Outcome.RAN in self.outcomes.values()

    def ran(self, name: str) -> bool:
        """Whether a stage was executed, not restored."""
        return self.outcomes.get(name) is Outcome.RAN


class NotRegistered(Exception):
    """Everything is trained and measured, but MLflow was away; the next run registers it without training again."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.release.problem)
        self.result = result


@flow(name="retrain")
def retrain(overrides: Sequence[str] = ()) -> Result | State[None] | None:
    """Bring every stage up to date, register the student and decide on its promotion.

    Args:
        overrides: ``section.key=value`` assignments, applied to ``params.yaml`` first.

    Returns:
        The result; a completed state named Skipped from a deployment's run that finds nothing changed; None from a run
        that was suspended for an approval and is resumed, which computes nothing.
    """
    began = time.monotonic()
    shown = display.current() or Display(lambda _: None, get_run_logger())
    shown.logger = get_run_logger()
    params = override_params(list(overrides)) if overrides else load_params()
    if runtime.deployment.id:
        keep_home(params.project.name, flow_run_id())
    require_tracking()
    suspends = runtime.deployment.id and params.registry.approval == "human"
    if suspends and (waiting := approval.left(params, flow_run_id())):
        approval.wait(params, int(waiting.version), flow_run_id())
        return None
    prepare_dvc()
    two_pools = runtime.deployment.id and params.run.placement == "two-pools"
    pool = elsewhere.pool(flow_run_id()) if two_pools else None
    made_of = skip.identity(params) if runtime.deployment.id else None
    if done := skip.done(params, made_of):
        return skipped(params, done.sentence(params.registry.model_name), shown.logger)
    fetch(params.ingest.source)
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1"}
    with tracking.courier(), recorded(params, shown, made_of) as (name, journal), flow_page.progress(shown):
        forced = outdated(params)
        store = remote.name()
        with Runner(shown, environment | {PARENT_VARIABLE: journal.id}, forced, pull=store is not None) as runner:
            pipeline = Pipeline(shown, journal, runner, unchanged(forced), store)
            run_stages(pipeline, pool, overrides)
        if store is not None:
            remote.push(store)
        if store is not None and runtime.deployment.id:
            shown.note(lock_branch.bring_back(name, journal))
        metrics = read_json(ARTIFACTS / "evaluate" / "metrics.json")
        mlflow_run.evaluation(journal, params, metrics)
        patience_s = _PATIENCE_S if runtime.deployment.id else 0
        released = release.release(params, journal, shown, flow_run_id(), patience_s)
        model = params.registry.model_name
        result = Result(name, model, pipeline.outcomes, metrics, released, time.monotonic() - began)
        mlflow_run.outcome(journal, result)
        flow_page.result(result, params.project.name)
        if released.registered and released.registered.created:
            mlflow_run.reference(journal, params.seed)
    if released.problem:
        raise NotRegistered(result)
    for problem in declared.keep(params.project.name, mlflow_run.in_production(result)):
        shown.note(f"Note: {problem}.")
    promotion = released.promotion
    if suspends and promotion and promotion.outcome == AWAITING and not promotion.existing:
        approval.wait(params, promotion.version, flow_run_id())
    if runtime.deployment.id and not result.trained and promotion and promotion.existing:
        why = f"All stages are restored, and are {model} version {promotion.version} ({promotion.outcome}) already."
        return skipped(params, why, shown.logger)
    return result


def run_stages(pipeline: Pipeline, pool: str | None, overrides: Sequence[str]) -> None:
    """All stages in order, but for the starting weights, which come while the data does.

    Args:
        pipeline: the run in progress.
        pool: the one that trains for it, if it is not this run's.
        overrides: of the params.
    """
    if pool is None:
        begin(pipeline, "pretrain", beside="ingest")
    stage(pipeline, "ingest")
    pipeline.journal.tags({"dvc.data_md5": lineage.data_md5() or lineage.NONE})
    stage(pipeline, "validate")
    if pool is None:
        train(pipeline)
    else:
        parent = release.arrived(pipeline.journal, release.between_attempts(_PATIENCE_S))
        elsewhere.train(pipeline, pool, overrides, parent)
    for name in ("compress", "evaluate"):
        stage(pipeline, name)


def flow_run_id() -> str:
    """The id of the present flow run in Prefect."""
    return str(runtime.flow_run.id)


@contextmanager
def recorded(params: Params, shown: Display, made_of: str | None) -> Iterator[tuple[str, Journal]]:
    """The parent run's journal: FINISHED, FAILED, or KILLED when someone stopped the run."""
    code = lineage.code()
    if code.missing:
        shown.note(code.missing)
    name = f"retrain-{datetime.now(UTC):%Y%m%d-%H%M%S}-{code.sha[:7]}"
    tags = {
        "run_kind": "pipeline",
        "git.sha": code.sha,
        "git.dirty": str(code.dirty).lower(),
        "params.sha256": lineage.params_sha256(),
        "prefect.flow_run_id": flow_run_id(),
    }
    if made_of is not None:
        tags[skip.TAG] = made_of
    journal = Journal(params.project.name, name, tags)
    journal.params(params.model_dump(by_alias=True, exclude={"run"}))
    journal.artifact(PARAMS)
    status: Status = "KILLED"
    try:
        yield name, journal
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        journal.end(status)
