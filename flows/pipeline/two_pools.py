"""Training on a worker of another pool (``run.placement: two-pools``): start it, wait for it, fetch its results.

The two clones share their commit and DVC's remote and nothing else. ``dvc.lock`` goes along and comes back, and each
clone pulls what its own stages read: no training ever sees the test split, and no evaluation loads the soft labels.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import Artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from reflux.components.core import dvc_yaml
from reflux.components.core.artifacts import atomic
from reflux.components.core.contract import TRAINING
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import lineage
from reflux.components.core.runtime.lineage import LOCK
from reflux.flows.local.pipelines import current
from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.pipeline.tasks import POLICY, Pipeline, ended, pull
from reflux.flows.repo import remote
from reflux.flows.report.display import Display

DEPLOYMENT = "train/train"
COMMIT_VARIABLE = "REFLUX_COMMIT"  # what the deployment's clone checks out

_RESULT = "train-result"
_SECONDS_BETWEEN_LOOKS = 5.0
_ONLY_TO_TRAIN = "artifacts/label/store"


def pool(flow_run_id: str) -> str:
    """The pool whose workers train for this run.

    Raises:
        UserError: there is none.
    """
    refused = "run.placement = two-pools, but"
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run_id)).work_pool_name
        try:
            trains = client.read_deployment_by_name(DEPLOYMENT).work_pool_name
        except ObjectNotFound:
            raise UserError(f"{refused} Prefect has no deployment {DEPLOYMENT}: run `reflux deploy`.") from None
    if trains == own:
        raise UserError(
            f"{refused} this run itself occupies the worker of the pool {own} that would train for it: commit "
            "run.placement to params.yaml and run `reflux deploy`, which puts retrain on another pool."
        )
    if remote.name() is None:
        raise UserError(
            f"{refused} the project has no default DVC remote, through which its workers share their results: "
            "`dvc remote add --default NAME URL`, and commit .dvc/config."
        )
    return str(trains)


def train(pipeline: Pipeline, pool: str, overrides: Sequence[str], parent: str) -> None:
    """Have another pool bring the stages that train up to date, and fetch their results.

    Args:
        pipeline: this run.
        pool: the one that trains.
        overrides: of this run's params.
        parent: the id of this run in MLflow.

    Raises:
        StageFailed: training ended without a result.
    """
    parameters = {"overrides": list(overrides), "lock": LOCK.read_text(encoding="utf-8"), "parent": parent}
    if name := current():  # a deployment that was made before there were pipelines has no such parameter
        parameters["pipeline"] = name
    pipeline.display.elsewhere = f"training on the pool {pool}"
    try:
        result = _result(_trained(pool, parameters, pipeline.display))
    finally:
        pipeline.display.elsewhere = ""
    with atomic(LOCK) as temporary:
        temporary.write_text(result["lock"], encoding="utf-8")
    pull(str(pipeline.remote), brought_back())
    for name in TRAINING:
        ended(pipeline, name, StageOutcome(result["outcomes"][name]))


def give_back(outcomes: Mapping[str, StageOutcome]) -> None:
    """Leave what DVC did, and the lock file, for the run that started this one."""
    data = {"outcomes": {name: outcome.value for name, outcome in outcomes.items()}, "lock": LOCK.read_text("utf-8")}
    Artifact(type="result", key=_RESULT, description="Read by the retrain that started this run", data=data).create()


def brought_back() -> list[str]:
    """The results of the stages that train which other stages read."""
    return [out for out in made(TRAINING) if out != _ONLY_TO_TRAIN]


def made(names: Sequence[str]) -> list[str]:
    """The outputs of stages, by ``dvc.yaml``."""
    return [out for name in names for out in dvc_yaml.stages()[name]["outs"]]


def read(names: Sequence[str]) -> list[str]:
    """The outputs of other stages that these stages read, by ``dvc.yaml``."""
    stages = dvc_yaml.stages()
    every = {dep for name in names for dep in dvc_yaml.reads(stages[name])}
    return sorted({dep for dep in every if dep.startswith("artifacts/")} - set(made(names)))


@task(name="train", task_run_name="train on {pool}", retries=1, **POLICY)
def _trained(pool: str, parameters: dict[str, Any], display: Display) -> UUID:
    """Run the deployment that trains; if its process or machine is lost, a second run continues where it stopped."""
    trace = display.spans.environment if display.spans else {}
    variables = {"env": {COMMIT_VARIABLE: lineage.code().sha, **trace}}
    with get_client(sync_client=True) as client:
        run = cast(FlowRun, run_deployment(DEPLOYMENT, parameters=parameters, job_variables=variables, timeout=0))
        display.note(f"Training is the run {run.name} on the pool {pool}.")
        state = _awaited(client, run.id)
    if state.is_completed():
        return run.id
    display.note(f"Training, the run {run.name}, is {state.name}: {state.message}")
    sentence = f"its run {run.name} on the pool {pool} is {state.name} ({state.message})"
    raise StageFailed("training", sentence, transient=state.is_crashed())


def _awaited(client: SyncPrefectClient, run: UUID) -> State[Any]:
    """The final state of a run, which is cancelled if this one ends first."""
    try:
        while not ((state := client.read_flow_run(run).state) and state.is_final()):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return state
    except BaseException:
        with suppress(httpx.HTTPError):
            client.set_flow_run_state(run, State(type=StateType.CANCELLING))
        raise


def _result(run: UUID) -> dict[str, Any]:
    by_key = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[_RESULT]))
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=by_key)
    return cast(dict[str, Any], json.loads(str(artifact.data)))  # Prefect keeps it as text
