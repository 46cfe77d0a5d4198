"""``registry.approval: human`` on a deployment: the flow run is suspended until a person approves.

The run that is resumed is a new process in a new clone of the project, so it computes nothing: it finds the
version that it left waiting and carries out the recorded decision.
"""

import sys
from uuid import UUID

import httpx
from prefect import resume_flow_run, suspend_flow_run
from prefect.exceptions import NotPausedError, ObjectNotFound
from prefect.input import RunInput

from reflux.components.core.params.sections import Params
from reflux.components.registry import client
from reflux.components.registry.ledger.record import APPROVAL, APPROVAL_FLOW, AWAITED
from reflux.components.registry.promote import approve

_KEY = "approval"


class Approval(RunInput):
    """The form on Prefect's page of a suspended run."""

    by: str
    reason: str


def left(params: Params, flow_run_id: str) -> int | None:
    """The version that an earlier part of this flow run left waiting; None when this is its first part."""
    mlflow = client.connect()
    with client.translate_errors():
        waiting = client.versions(mlflow, params.registry.model_name, f"tags.`{APPROVAL_FLOW}` = '{flow_run_id}'")
    return int(waiting[-1].version) if waiting else None


def wait(params: Params, version: int, flow_run_id: str) -> None:
    """Suspend the run or, in a resumed run, approve the version on behalf of the person who resumed it.

    Raises:
        UserError: the file or its figures were changed, or the champion has changed since.
    """
    name, mlflow = params.registry.model_name, client.connect()
    with client.translate_errors():
        client.set_tags(mlflow, name, version, {APPROVAL_FLOW: flow_run_id})
    approval = suspend_flow_run(wait_for_input=Approval, key=_KEY)
    with client.translate_errors():
        state = client.version(mlflow, name, version).tags.get(APPROVAL)
    if state == AWAITED:  # else `reflux approve` has done it
        approve(params.project.name, name, version, approval.reason, approval.by)


def resume(model_name: str, version: int, reason: str) -> None:
    """Resume the flow run that waits for a version, if there is one; the version is approved already."""
    mlflow = client.connect()
    with client.translate_errors():
        waiting = client.version(mlflow, model_name, version).tags.get(APPROVAL_FLOW)
    if waiting is None:
        return
    try:
        resume_flow_run(UUID(waiting), run_input={"by": client.identity(), "reason": reason})
    except (ObjectNotFound, NotPausedError, httpx.HTTPError) as error:
        print(f"The flow run {waiting}, which waits for it, could not be resumed: {error}", file=sys.stderr)
