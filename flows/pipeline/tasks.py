"""The stages of a run, each seen to its end once: a Prefect task a stage, its result stored where others find it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from components.core.artifacts import ARTIFACTS, read_json, sha256_file
from components.core.params.sections import Params
from components.core.runtime.journal import Journal
from flows.dvc import remote
from flows.dvc.stages import Outcome, Runner, StageFailed
from flows.report.display import Display


@dataclass
class Pipeline:
    """One run in progress.

    Attributes:
        shown: is told of each stage.
        journal: of the pipeline run.
        runner: starts the stages.
        cached: the stages that need no run.
        remote: DVC's default remote, if there is one.
        outcomes: what DVC did for each stage that has ended.
    """

    shown: Display
    journal: Journal
    runner: Runner
    cached: set[str]
    remote: str | None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def outdated(params: Params) -> frozenset[str]:
    """The stages that read a file of weights whose content may have changed under its name.

    DVC only knows the name. In a fresh clone, where no artifact tells of the content, they must run.
    """
    starts = {"model.json": params.pretrain.weights, "student/model.json": params.student.weights}
    origins = {ARTIFACTS / "pretrain" / name: weights for name, weights in starts.items()}
    changed = {"pretrain"} if any(_differs(weights, origin, "sha256") for origin, weights in origins.items()) else set()
    made = ARTIFACTS / "distill" / "run.json"
    if any(_differs(teacher, made, "inputs", teacher) for teacher in params.distill.teachers):
        changed |= {"label", "distill"}
    return frozenset(changed)


def _differs(weights: str, told_by: Path, *keys: str) -> bool:
    """Whether a file is not the one whose sha256 an artifact holds under some keys."""
    if not Path(weights).is_file():
        return False
    if not told_by.is_file():
        return True
    told = read_json(told_by)
    for key in keys:
        told = told.get(key, {})
    return bool(told != sha256_file(Path(weights)))


def train(pipeline: Pipeline) -> None:
    """The stages that train. The control trains beside the student's distillation: equal budgets, so they end together.

    Everything is started and awaited in this, the main thread: a stage's supervisor dies with the thread that
    started it, and Prefect's ``submit`` would start it in one that a cancellation does not reach.
    """
    for name in ("pretrain", "finetune", "label"):
        stage(pipeline, name)
    begin(pipeline, "control", beside="distill")
    for name in ("distill", "control"):
        stage(pipeline, name)


def begin(pipeline: Pipeline, name: str, beside: str) -> None:
    """Start a stage that is awaited later; it shares the cores with the one that runs ``beside`` it."""
    if name not in pipeline.cached:
        pipeline.shown.begin(name)
        pipeline.runner.start(name, beside_another=beside not in pipeline.cached)


def stage(pipeline: Pipeline, name: str) -> None:
    """See one stage to its end, once, and link the run that made its artifacts."""
    pipeline.shown.begin(name)
    try:
        outcome = stage_task(name)(pipeline.runner, name, name in pipeline.cached)
    except BaseException:
        pipeline.shown.close(name, "failed")
        raise
    ended(pipeline, name, outcome)
    if outcome is Outcome.RAN and pipeline.remote is not None:
        remote.push(pipeline.remote, name)


def ended(pipeline: Pipeline, name: str, outcome: Outcome) -> None:
    """Note what DVC did for a stage, here or on another worker."""
    pipeline.outcomes[name] = outcome
    pipeline.shown.end(name, outcome)
    if outcome is Outcome.CACHED:
        pipeline.journal.tags({f"restored.{name}": maker(name)})


def can_pass_by_itself(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed stage is worth another try; what the user must mend is not."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageFailed) and failure.transient


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[2, 15],
    retry_condition_fn=can_pass_by_itself,
    log_prints=False,
)
def run_stage(runner: Runner, name: str, cached: bool) -> Outcome:
    """One stage. DVC decides whether it runs; its own cache is the only one."""
    return Outcome.CACHED if cached else runner.run(name)


def stage_task(name: str) -> Task[[Runner, str, bool], Outcome]:
    """The Prefect task that carries the stage's name."""
    return run_stage.with_options(name=name, task_run_name=name)


def maker(name: str) -> str:
    """The MLflow run that made a stage's artifacts (or its journal's id, where it waits to be delivered)."""
    made = read_json(ARTIFACTS / name / "run.json")
    return made["mlflow_run_id"] or f"reflux.journal={made['journal']}"
