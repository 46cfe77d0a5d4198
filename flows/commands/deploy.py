"""``reflux deploy``: makes a Prefect server what ``infra/prefect.yaml`` says, and tells what that changed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from rich.table import Table
from ruamel.yaml import YAML

from components.core.errors import UserError
from components.core.params.file import load_params
from components.core.runtime.tracking import without_password
from flows.commands import automations
from flows.dvc.checkout import git
from flows.local.environment import QUIET
from flows.local.prefect_server import reachable
from flows.report.display import console

MANIFEST = Path("infra/prefect.yaml")
REPOSITORY = "REFLUX_REPOSITORY"

_RETRAIN, _MONITOR = "flows/retrain.py:retrain", "flows/monitor.py:monitor"

_COMPARED = {
    *("description", "tags", "entrypoint", "path", "parameters", "paused", "work_pool_name", "job_variables"),
    *("pull_steps", "concurrency_options", "global_concurrency_limit"),
}
_COLOURS = {"made": "green", "changed": "yellow", "not in the file": "red"}

Row = tuple[str, str, str]


def deploy() -> None:
    """Make pools, deployments with their schedules, and automations; print a table of what was made or changed.

    Raises:
        UserError: no server, no repository or no manifest; or Prefect refuses it.
    """
    if not (api := os.environ.get("PREFECT_API_URL")):
        raise UserError("PREFECT_API_URL is not set: set it to your Prefect server, for nothing is deployed without.")
    if not reachable(api):
        raise UserError(f"Prefect at {without_password(api)} does not answer: start it, or correct PREFECT_API_URL.")
    if not MANIFEST.is_file():
        raise UserError(f"{MANIFEST} is missing in {Path.cwd().name}/: run reflux deploy in the project's root folder.")
    document = placed(YAML(typ="safe").load(MANIFEST.read_text(encoding="utf-8")), load_params().run.placement)
    where = repository()
    try:
        with get_client(sync_client=True) as client:
            rows = [*_pools(client, document), *_deployments(client, document, where)]
        rows += _automations()
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        mend = "set PREFECT_API_AUTH_STRING" if code in (401, 403) else "see its log, and run reflux deploy again"
        answer = f"{code} {error.response.reason_phrase}"
        raise UserError(f"Prefect at {without_password(api)} answers {answer}: {mend}.") from None
    _show(rows)


def placed(document: dict[str, Any], placement: str) -> dict[str, Any]:
    """The manifest with its retrains on the pool where, by ``run.placement``, they shall run.

    With two pools they wait for their training, and hold no worker of the pool that trains.
    """
    if placement == "two-pools":
        pools = {each["entrypoint"]: each["work_pool"]["name"] for each in document["deployments"]}
        for each in document["deployments"]:
            if each["entrypoint"] == _RETRAIN:
                each["work_pool"]["name"] = pools[_MONITOR]
    return document


def repository() -> str:
    """Where workers clone the project from.

    Raises:
        UserError: nobody says, or it holds a password, which every reader of the deployment would see.
    """
    where = os.environ.get(REPOSITORY) or _origin()
    if not where:
        raise UserError(f"{REPOSITORY} is not set, and this folder has no git remote: set it to what workers clone.")
    if urlsplit(where).password:
        raise UserError(f"{REPOSITORY} holds a password, which a deployment would show: let workers use an SSH key.")
    return where


def _origin() -> str:
    try:
        return git("remote", "get-url", "origin")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""


def _pools(client: SyncPrefectClient, document: Mapping[str, Any]) -> Iterator[Row]:
    """A process pool for each name; one that is there, of whatever type, is left as it is."""
    for name in sorted({each["work_pool"]["name"] for each in document["deployments"]}):
        try:
            client.read_work_pool(name)
            did = "unchanged"
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # a worker that starts at this moment makes its pool as well
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            did = "made"
        yield "work pool", name, did


def _deployments(client: SyncPrefectClient, document: Mapping[str, Any], where: str) -> list[Row]:
    declared = {f"{each['entrypoint'].rpartition(':')[2]}/{each['name']}": each for each in document["deployments"]}
    before = {name: _state(client, name) for name in declared}
    # Prefect would resume what a person has paused.
    paused = [{**each, "paused": bool((before[name] or {}).get("paused"))} for name, each in declared.items()]
    _prefect_deploy({**document, "deployments": paused}, where)
    rows = []
    for name, each in declared.items():
        _drop_schedules(client, name, {schedule["slug"] for schedule in each.get("schedules", [])})
        after = _state(client, name)
        did = "made" if before[name] is None else "unchanged" if after == before[name] else "changed"
        rows.append(("deployment", name, did))
    ours = client.read_deployments(deployment_filter=DeploymentFilter(tags={"all_": [automations.TAG]}))
    for found in ours:
        name = f"{client.read_flow(found.flow_id).name}/{found.name}"
        if name not in declared:
            rows.append(("deployment", name, "not in the file"))
    return rows


def _state(client: SyncPrefectClient, name: str) -> dict[str, Any] | None:
    """What of a deployment the manifest decides, and whether it is paused; None when there is no such deployment."""
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    state = found.model_dump(mode="json", include=_COMPARED)
    state["limit"] = (state.pop("global_concurrency_limit") or {}).get("limit")
    schedules = [
        s.model_dump(mode="json", include={"schedule", "active", "slug", "parameters"}) for s in found.schedules
    ]
    return state | {"schedules": sorted(schedules, key=lambda schedule: schedule["slug"] or "")}


def _drop_schedules(client: SyncPrefectClient, name: str, declared: set[str]) -> None:
    """Take away schedules that the file had under another name; Prefect leaves them active beside the new ones."""
    found = client.read_deployment_by_name(name)
    for schedule in found.schedules:
        if schedule.slug and schedule.slug not in declared:
            client.delete_deployment_schedule(found.id, schedule.id)


def _prefect_deploy(document: Mapping[str, Any], where: str) -> None:
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        manifest = Path(folder) / "prefect.yaml"
        with manifest.open("w", encoding="utf-8") as file:
            YAML().dump(document, file)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(manifest), "--all"]
        settings = {**os.environ, **QUIET, REPOSITORY: where}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no reason given"]
        raise UserError(f"Prefect does not take {MANIFEST}: {said[-1].strip()}")


def _automations() -> Iterator[Row]:
    told = []
    for receiver in automations.RECEIVERS:
        block, did = automations.keep_receiver(receiver)
        yield "alerts to", receiver.variable, did
        if block is not None:
            told.append((receiver, block))
    for automation in automations.wanted(told):
        yield "automation", automation.name, automations.keep(automation)


def _show(rows: list[Row]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "name", "this time"):
        table.add_column(column)
    for what, name, did in rows:
        table.add_row(what, name, did, style=_COLOURS.get(did))
    screen = console()
    screen.print(table)
    for _, name, did in rows:
        if did == "not in the file":
            screen.print(f"{MANIFEST} has no {name}: if nothing needs it, `prefect deployment delete {name}`.")
