"""The stages of a run as Prefect tasks: each is seen to its end once, and its result stored where others find it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import STAGES
from reflux.components.core.runtime.journal import Journal
from reflux.components.registry.client import Unreachable
from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.repo import remote
from reflux.flows.repo.stages import Runner
from reflux.flows.report.display import Display


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying a failed task again may help: a killed stage, a held lock, a server or a remote that was away."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, Unreachable) or (isinstance(failure, StageFailed) and failure.transient)


# Of every task of a pipeline run. DVC decides what is computed again; its own cache is the only one.
POLICY: dict[str, Any] = {"cache_policy": NO_CACHE, "retry_condition_fn": is_transient}
_REMOTE: dict[str, Any] = {**POLICY, "retries": 4, "retry_delay_seconds": exponential_backoff(10)}  # 10, 20, 40, 80 s


@dataclass
class Pipeline:
    """One run in progress.

    Attributes:
        display: follows each stage.
        journal: of the pipeline run.
        runner: starts the stages.
        cached: the stages that need no run.
        remote: DVC's default remote, if there is one.
        outcomes: what DVC did for each stage that has ended.
    """

    display: Display
    journal: Journal
    runner: Runner
    cached: set[str]
    remote: str | None
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)


def train(pipeline: Pipeline) -> None:
    """Run the stages that train. The control runs next to the distillation: equal budgets, so they end together.

    Everything is started and awaited in this, the main thread: a stage's supervisor dies with the thread that
    started it, and Prefect's ``submit`` would start it in one that a cancellation does not reach.
    """
    for name in ("pretrain", "finetune", "label"):
        stage(pipeline, name)
    begin(pipeline, "control", alongside="distill")
    for name in ("distill", "control"):
        stage(pipeline, name)


def begin(pipeline: Pipeline, name: str, alongside: str) -> None:
    """Start a stage that is awaited later; it shares the cores with the one that runs ``alongside`` it."""
    if name not in pipeline.cached:
        pipeline.display.begin(name)
        pipeline.runner.start(name, shares_cores=alongside not in pipeline.cached)


def stage(pipeline: Pipeline, name: str) -> None:
    """See one stage to its end, once, and link the run that made its artifacts."""
    pipeline.display.begin(name)
    try:
        outcome = stage_task(name)(pipeline.runner, name, name in pipeline.cached)
    except Exception:  # and not what stops the whole run
        pipeline.display.close(name, "failed")
        raise
    ended(pipeline, name, outcome)
    if outcome is StageOutcome.RAN and pipeline.remote is not None:
        push(pipeline.remote, name)


def ended(pipeline: Pipeline, name: str, outcome: StageOutcome) -> None:
    """Note what DVC did for a stage, here or on another worker."""
    pipeline.outcomes[name] = outcome
    pipeline.display.end(name, outcome)
    if outcome is StageOutcome.CACHED:
        pipeline.journal.tags({f"restored.{name}": maker(name)})


@task(retries=2, retry_delay_seconds=[2, 15], log_prints=False, **POLICY)
def run_stage(runner: Runner, name: str, cached: bool) -> StageOutcome:
    """One stage; one that needs no run is a task all the same, so that the flow's page shows it."""
    return StageOutcome.CACHED if cached else runner.run(name)


def stage_task(name: str) -> Task[[Runner, str, bool], StageOutcome]:
    """The Prefect task that carries the stage's name."""
    return run_stage.with_options(name=name, task_run_name=name)


@task(name="push", task_run_name="push {stage}", **_REMOTE)
def push(to: str, stage: str = "") -> None:
    """``repo.remote.push``, tried again while the remote does not answer."""
    remote.push(to, stage, in_clone=bool(runtime.deployment.id))


@task(name="pull", task_run_name="pull", **_REMOTE)
def pull(source: str, outs: Sequence[str]) -> None:
    """``repo.remote.pull``, tried again while the remote does not answer."""
    remote.pull(source, outs)


def unlike() -> str | None:
    """A sentence if teacher, student and control were not all computed alike, or None.

    DVC keys results by releases of packages, not by hardware: one that a GPU's worker has stored serves everywhere.
    """
    alike: dict[str, list[str]] = {}
    for name in (name for name, stage in STAGES.items() if stage.role):
        environment = read_json(ARTIFACTS / name / "run.json")["environment"]
        compiled = ", compiled" if environment["compile"] else ""
        versions = " ".join(f"{package} {environment[package]}" for package in STAGES[name].packages)
        alike.setdefault(f"{environment['device']} with {versions}{compiled}", []).append(name)
    if len(alike) == 1:
        return None
    groups = "; ".join(f"{' and '.join(names)} on {where}" for where, names in alike.items())
    return f"Not all was computed alike, which moves the last digits: {groups}."


def maker(name: str) -> str:
    """The MLflow run that made a stage's artifacts (or its journal's id, if it is not delivered yet)."""
    made = read_json(ARTIFACTS / name / "run.json")
    return made["mlflow_run_id"] or f"reflux.journal={made['journal']}"
