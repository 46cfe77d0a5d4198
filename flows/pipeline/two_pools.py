"""Training on a worker of another pool (``run.placement: two-pools``): asked for, waited for, its results fetched.

The two clones share their commit and DVC's remote and nothing else. ``dvc.lock`` goes along and comes back, and each
clone pulls what its own stages read: no training ever sees the test split, and no evaluation loads the soft labels.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import Artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from ruamel.yaml import YAML

from components.core.artifacts import atomic
from components.core.contract import TRAINING
from components.core.errors import UserError
from components.core.runtime import lineage
from components.core.runtime.lineage import LOCK
from flows.dvc import remote
from flows.dvc.stages import Outcome, StageFailed
from flows.pipeline.tasks import Pipeline, ended

DEPLOYMENT = "train/train"
COMMIT_VARIABLE = "REFLUX_COMMIT"  # what the deployment's clone checks out

_RESULT = "train-result"
_TRIES = 2
_SECONDS_BETWEEN_LOOKS = 5.0
_ONLY_TO_TRAIN = "artifacts/label/store"


def pool(flow_run_id: str) -> str:
    """The pool whose workers train for this run.

    Raises:
        UserError: none can.
    """
    refused = "run.placement = two-pools, but"
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run_id)).work_pool_name
        try:
            found = client.read_deployment_by_name(DEPLOYMENT).work_pool_name
        except ObjectNotFound:
            raise UserError(f"{refused} Prefect has no deployment {DEPLOYMENT}: run `reflux deploy`.") from None
    if found == own:
        raise UserError(
            f"{refused} this run itself holds the worker of the pool {own} that its training would wait for: commit "
            "run.placement to params.yaml and run `reflux deploy`, which puts retrain on another pool."
        )
    if remote.name() is None:
        raise UserError(
            f"{refused} the project has no default DVC remote, through which its workers share what they make: "
            "`dvc remote add --default NAME URL`, and commit .dvc/config."
        )
    return str(found)


def train(pipeline: Pipeline, on: str, overrides: Sequence[str], parent: str) -> None:
    """Have the stages that train brought up to date, and bring here what they made.

    Args:
        pipeline: this run.
        on: the pool that trains.
        overrides: of this run's params.
        parent: the id of this run in MLflow.

    Raises:
        StageFailed: the training ended without a result.
    """
    parameters = {"overrides": list(overrides), "lock": LOCK.read_text(encoding="utf-8"), "parent": parent}
    pipeline.shown.elsewhere = f"training on the pool {on}"
    try:
        with get_client(sync_client=True) as client:
            result = _result(client, _trained(client, pipeline, on, parameters).id)
    finally:
        pipeline.shown.elsewhere = ""
    with atomic(LOCK) as temporary:
        temporary.write_text(result["lock"], encoding="utf-8")
    remote.pull(str(pipeline.remote), brought_back())
    for name in TRAINING:
        ended(pipeline, name, Outcome(result["outcomes"][name]))


def give_back(outcomes: Mapping[str, Outcome]) -> None:
    """Leave, for the run that asked for this one, what DVC did and the lock file."""
    data = {"outcomes": {name: outcome.value for name, outcome in outcomes.items()}, "lock": LOCK.read_text("utf-8")}
    Artifact(type="result", key=_RESULT, description="What the run that asked for it reads", data=data).create()


def brought_back() -> list[str]:
    """What the stages that train make for others."""
    return [out for out in made(TRAINING) if out != _ONLY_TO_TRAIN]


def made(names: Sequence[str]) -> list[str]:
    """What stages make, as ``dvc.yaml`` has it."""
    return [out for name in names for out in _stages()[name]["outs"]]


def read(names: Sequence[str]) -> list[str]:
    """What stages read of what others have made, as ``dvc.yaml`` has it."""
    read = {dep for name in names for dep in _stages()[name]["deps"] if dep.startswith("artifacts/")}
    return sorted(read - set(made(names)))


def _stages() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"])


def _trained(client: SyncPrefectClient, pipeline: Pipeline, on: str, parameters: dict[str, Any]) -> FlowRun:
    """The run that trained; one whose process or machine was lost is asked for once more, and goes on where it was."""
    for _ in range(_TRIES):
        at = {"env": {COMMIT_VARIABLE: lineage.code().sha}}
        run = cast(FlowRun, run_deployment(DEPLOYMENT, parameters=parameters, job_variables=at, timeout=0))
        pipeline.shown.note(f"Training is the run {run.name} on the pool {on}.")
        state = _awaited(client, run.id)
        if state.is_completed():
            return run
        pipeline.shown.note(f"Training, the run {run.name}, is {state.name}: {state.message}")
        if not state.is_crashed():
            break
    raise StageFailed("training", f"its run {run.name} on the pool {on} is {state.name} ({state.message})")


def _awaited(client: SyncPrefectClient, run: UUID) -> State[Any]:
    """How a run ended; it is cancelled when this one ends first."""
    try:
        while not ((state := client.read_flow_run(run).state) and state.is_final()):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return state
    except BaseException:
        with suppress(httpx.HTTPError):
            client.set_flow_run_state(run, State(type=StateType.CANCELLING))
        raise


def _result(client: SyncPrefectClient, run: UUID) -> dict[str, Any]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[_RESULT]))
    (found,) = client.read_artifacts(artifact_filter=wanted)
    return cast(dict[str, Any], json.loads(str(found.data)))  # Prefect keeps it as text
