"""The retrain flow: the computation of a pipeline run, and what a deployment adds around it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State

from reflux.components.advice.preflight.data import check_ingested
from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import STAGES, TRAINING
from reflux.components.core.params.file import PARAMS, load_params, override_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, lineage, tracking
from reflux.components.core.runtime.journal import COURIER_VARIABLE, PARENT_VARIABLE, Journal, Status
from reflux.components.observe.boards.keep import keep as keep_boards
from reflux.components.registry.ledger.ledger import AWAITING
from reflux.flows.local.environment import embed_mlflow, keep_home
from reflux.flows.local.pipelines import enter
from reflux.flows.outcome import StageOutcome
from reflux.flows.pipeline import approval, release, skip, two_pools
from reflux.flows.pipeline.clone import flow_run_id, require_tracking, skipped
from reflux.flows.pipeline.preflight import preflight
from reflux.flows.pipeline.tasks import Pipeline, begin, push, stage, train, unlike
from reflux.flows.repo import lock_branch, remote
from reflux.flows.repo.changes import outdated
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.dataset import fetch
from reflux.flows.repo.stages import Runner, unchanged
from reflux.flows.report import flow_page, mlflow_run
from reflux.flows.report.display import Display, current_display
from reflux.flows.report.result import NotRegistered, Result
from reflux.flows.report.tracing import traced

_PATIENCE_S = 900.0  # a run that nobody watches waits for MLflow


@flow(name="retrain")
def retrain(overrides: Sequence[str] = (), pipeline: str = "") -> Result | State[None] | None:
    """Bring every stage up to date, register the student and decide on its promotion.

    Args:
        overrides: ``section.key=value`` assignments, applied to ``params.yaml`` first.
        pipeline: its name, if it is not that of the working folder.

    Returns:
        The result; from a deployment's run also what ``in_clone`` adds.

    Raises:
        UserError: something is missing or wrong.
        StageFailed: a stage failed.
        NotRegistered: everything is trained, but MLflow was away.
    """
    enter(pipeline)
    params = override_params(list(overrides)) if overrides else load_params()
    return in_clone(params, overrides) if runtime.deployment.id else compute(params)


def in_clone(params: Params, overrides: Sequence[str]) -> Result | State[None] | None:
    """A deployment's run, in a worker's clone: what is computed already is skipped, and a person may have to approve.

    Args:
        params: all of them, after the overrides.
        overrides: also for the pool that trains.

    Returns:
        The result; a completed state named Skipped when nothing has changed; None from a run that was suspended for an
        approval and is resumed, which computes nothing.
    """
    logger, flow_run, model = get_run_logger(), flow_run_id(), params.registry.model_name
    keep_home(params.project.name, flow_run)
    require_tracking()
    by_person = params.registry.approval == "human"
    if by_person and (version := approval.left(params, flow_run)):
        approval.wait(params, version, flow_run)
        return None
    prepare_dvc()
    pool = two_pools.pool(flow_run) if params.run.placement == "two-pools" else None
    inputs = skip.identity(params)
    if done := skip.done(params, inputs):
        return skipped(params, done.sentence(model), logger)
    preflight()
    result = compute(params, inputs, pool, overrides, unattended=True)
    if promotion := result.release.promotion:
        if by_person and promotion.outcome == AWAITING and not promotion.existing:
            approval.wait(params, promotion.version, flow_run)
        if promotion.existing and not result.executed:
            why = f"All stages are restored, and are {model} version {promotion.version} ({promotion.outcome}) already."
            return skipped(params, why, logger)
    return result


def compute(
    params: Params,
    inputs: str | None = None,
    pool: str | None = None,
    overrides: Sequence[str] = (),
    unattended: bool = False,
) -> Result:
    """Compute what has changed, register the student, decide on it, and report the result to MLflow and Prefect.

    Args:
        params: all of them.
        inputs: the hash of everything that decides the result, which a later run looks for.
        pool: another work pool that trains for this run.
        overrides: of the params, for that pool.
        unattended: nobody watches, and this checkout is deleted after the run: wait for MLflow, and keep ``dvc.lock``.

    Raises:
        NotRegistered: everything is trained, but MLflow was away.
    """
    began = time.monotonic()
    display = current_display() or Display(lambda _: None, get_run_logger())
    display.logger = get_run_logger()
    prepare_dvc()
    embed_mlflow()
    fetch(params.datasets)
    with (
        traced(display, "retrain", params.project.name, flow_run_id()),
        tracking.courier(),
        recorded(params, display, inputs) as (name, journal),
        flow_page.progress(display),
    ):
        outcomes = run_stages(params, display, journal, pool, overrides)
        if unattended and remote.name() is not None:
            display.note(lock_branch.bring_back(name, journal))
        metrics = read_json(ARTIFACTS / "evaluate" / "metrics.json")
        mlflow_run.log_evaluation(journal, params, metrics)
        released = release.release(params, journal, display, flow_run_id(), _PATIENCE_S if unattended else 0)
        result = Result(name, params.registry.model_name, outcomes, metrics, released, time.monotonic() - began)
        mlflow_run.log_result(journal, result)
        flow_page.show_result(result, params.project.name)
        if released.registered and released.registered.created:
            mlflow_run.log_reference(journal, params.seed)
    if released.problem:
        raise NotRegistered(result)
    for problem in keep_boards(params.project.name, mlflow_run.in_production(result)):
        display.note(f"Note: {problem}.")
    return result


def run_stages(
    params: Params, display: Display, journal: Journal, pool: str | None, overrides: Sequence[str]
) -> dict[str, StageOutcome]:
    """Run all stages in order, but for the starting weights, which come while the data is checked.

    Args:
        params: all of them.
        display: follows the stages.
        journal: of the pipeline run.
        pool: the work pool that trains, if it is not this run's.
        overrides: of the params, for that pool.

    Returns:
        What DVC did for each stage.
    """
    here = [name for name in STAGES if pool is None or name not in TRAINING]
    if upgraded := installed.record(params, here):
        display.note(f"Note: {upgraded}")
    forced, store = outdated(params), remote.name()
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1", PARENT_VARIABLE: journal.id}
    with Runner(display, environment, forced, pull=store is not None) as runner:
        pipeline = Pipeline(display, journal, runner, unchanged(forced), store)
        stage(pipeline, "ingest")
        journal.tags({"dvc.data_md5": lineage.data_md5() or lineage.NONE})
        if pool is None and not params.pretrain.networks:  # nothing is trained before the data's checks
            begin(pipeline, "pretrain", alongside="validate")
        stage(pipeline, "validate")
        check_ingested(params)
        if pool is None:
            train(pipeline)
        else:
            two_pools.train(pipeline, pool, overrides, release.arrived(journal, _PATIENCE_S))
        for name in ("compress", "evaluate"):
            stage(pipeline, name)
    if difference := unlike():
        display.note(f"Note: {difference}")
    if store is not None:
        push(store)
    return pipeline.outcomes


@contextmanager
def recorded(params: Params, display: Display, inputs: str | None) -> Iterator[tuple[str, Journal]]:
    """The parent run's name and journal: FINISHED, FAILED, or KILLED when someone stopped the run."""
    code = lineage.code()
    if code.missing:
        display.note(code.missing)
    name = f"retrain-{datetime.now(UTC):%Y%m%d-%H%M%S}-{code.sha[:7]}"
    tags = {
        "run_kind": "pipeline",
        "git.sha": code.sha,
        "git.dirty": str(code.dirty).lower(),
        "params.sha256": lineage.params_sha256(),
        "prefect.flow_run_id": flow_run_id(),
    }
    if inputs is not None:
        tags[skip.TAG] = inputs
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
