"""``registry.approval: human`` on a deployment: the flow run is suspended until somebody gives their word.

The run that is resumed is a new process in a new clone of the project, so it does not compute anything: it finds the
version that it left waiting and carries out the decision that was recorded.
"""

import sys
from uuid import UUID

import httpx
from prefect import resume_flow_run, suspend_flow_run
from prefect.exceptions import NotPausedError, ObjectNotFound
from prefect.input import RunInput

from components.core.params.sections import Params
from components.registry import client
from components.registry.ledger.record import APPROVAL, APPROVAL_FLOW, AWAITED
from components.registry.promote import approve

_KEY = "approval"


class Word(RunInput):
    """What Prefect's page asks for when somebody resumes the run."""

    by: str
    reason: str


def left(params: Params, flow_run_id: str) -> int | None:
    """The version that an earlier part of this flow run left waiting; None when this is its first part."""
    mlflow = client.connect()
    with client.translate_errors():
        waiting = client.versions(mlflow, params.registry.model_name, f"tags.`{APPROVAL_FLOW}` = '{flow_run_id}'")
    return int(waiting[-1].version) if waiting else None


def wait(params: Params, version: int, flow_run_id: str) -> None:
    """Suspend the run, or, in the run that was resumed, approve the version in the name of who did it.

    Raises:
        UserError: the file or its figures were changed, or the champion is another one by now.
    """
    name, mlflow = params.registry.model_name, client.connect()
    with client.translate_errors():
        client.set_tags(mlflow, name, version, {APPROVAL_FLOW: flow_run_id})
    word = suspend_flow_run(wait_for_input=Word, key=_KEY)
    with client.translate_errors():
        state = client.version(mlflow, name, version).tags.get(APPROVAL)
    if state == AWAITED:  # else `reflux approve` has done it
        approve(params.project.name, name, version, word.reason, word.by)


def resume(model_name: str, version: int, reason: str) -> None:
    """Let the flow run that waits for a version come to its end, if one does; the version is approved already."""
    mlflow = client.connect()
    with client.translate_errors():
        waiting = client.version(mlflow, model_name, version).tags.get(APPROVAL_FLOW)
    if waiting is None:
        return
    try:
        resume_flow_run(UUID(waiting), run_input={"by": client.whoami(), "reason": reason})
    except (ObjectNotFound, NotPausedError, httpx.HTTPError) as error:
        print(f"The flow run {waiting} that waited for it is not resumed: {error}", file=sys.stderr)
