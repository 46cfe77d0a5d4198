"""``reflux deploy``: apply ``infra/prefect.yaml`` to a Prefect server, and print what has changed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from ruamel.yaml.error import YAMLError

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import PARAMS, load_params
from reflux.components.core.project import pipelines, root
from reflux.components.core.runtime.lineage import git
from reflux.components.core.runtime.tracking import without_secrets
from reflux.flows.commands.servers import automations
from reflux.flows.local.environment import QUIET
from reflux.flows.local.pipelines import folder
from reflux.flows.local.prefect_server import reachable
from reflux.flows.report.display import console

MANIFEST = Path("infra/prefect.yaml")
REPOSITORY = "REFLUX_REPOSITORY"

_RETRAIN, _MONITOR = "reflux.flows.retrain.retrain", "reflux.flows.monitor.monitor"
_TRAIN = "reflux.flows.train.train"

_COMPARED = {
    *("description", "tags", "entrypoint", "path", "parameters", "paused", "work_pool_name", "job_variables"),
    *("pull_steps", "concurrency_options", "global_concurrency_limit"),
}
_COLORS = {"made": "green", "changed": "yellow", "not in the file": "red"}

Row = tuple[str, str, str]


def deploy() -> None:
    """Create or update work pools, deployments with their schedules, and automations; print a table of the changes.

    Raises:
        UserError: there is no server, repository or manifest, or Prefect refuses it.
    """
    if not (api := os.environ.get("PREFECT_API_URL")):
        raise UserError("PREFECT_API_URL is not set: set it to the Prefect server to deploy to.")
    if not reachable(api):
        raise UserError(f"Prefect at {without_secrets(api)} does not answer: start it, or correct PREFECT_API_URL.")
    manifest = root() / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{MANIFEST} is missing in {Path.cwd().name}/: run reflux deploy in the project's root folder.")
    document = placed(read_manifest(manifest), _placements())
    address = repository()
    try:
        with get_client(sync_client=True) as client:
            rows = [*_pools(client, document), *_deployments(client, document, address)]
        rows += _automations()
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        fix = "set PREFECT_API_AUTH_STRING" if code in (401, 403) else "see its log, and run reflux deploy again"
        answer = f"{code} {error.response.reason_phrase}"
        raise UserError(f"Prefect at {without_secrets(api)} answers {answer}: {fix}.") from None
    _show(rows)


def read_manifest(manifest: Path) -> dict[str, Any]:
    """The deployments that a manifest declares.

    Raises:
        UserError: it is not YAML, an entry lacks what each deployment needs, or what it has is no mapping or list.
    """
    try:
        document = YAML(typ="safe").load(manifest.read_text(encoding="utf-8"))
    except (YAMLError, ValueError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"{MANIFEST} is not valid YAML ({words}): correct it, or restore it from git.") from None
    entries = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{MANIFEST} has no list of deployments: restore it from git.")
    for number, entry in enumerate(entries, 1):
        given = entry if isinstance(entry, dict) else {}
        pool = given.get("work_pool")
        found = {"name": given.get("name"), "entrypoint": given.get("entrypoint")}
        found["work_pool.name"] = pool.get("name") if isinstance(pool, dict) else None
        if lacking := [key for key, value in found.items() if not value]:
            raise UserError(f"{MANIFEST}: entry {number} of deployments has no {lacking[0]}: add it.")
        if not isinstance(given.get("parameters") or {}, dict):
            raise UserError(f"{MANIFEST}: parameters of entry {number} of deployments must be a mapping.")
        schedules = given.get("schedules") or []
        if not isinstance(schedules, list) or not all(isinstance(each, dict) for each in schedules):
            raise UserError(f"{MANIFEST}: schedules of entry {number} of deployments must be a list of mappings.")
    return document


def _placements() -> dict[str, str]:
    """``run.placement`` of each pipeline, by name; that of the root has an empty one.

    Raises:
        UserError: the params of one are missing or wrong.
    """
    files = {name: folder(name) / PARAMS for name in pipelines()}
    if (root() / PARAMS).is_file() or not files:
        files = {"": root() / PARAMS, **files}
    return {name: load_params(file).run.placement for name, file in files.items()}


def placed(document: Mapping[str, Any], placements: Mapping[str, str]) -> dict[str, Any]:
    """The manifest with a deployment of each flow for each pipeline, on the pool that ``run.placement`` asks for.

    An entry is for the pipeline that its ``parameters`` name. One that names none is for the root, and for each other
    pipeline that has no entry ``NAME-PIPELINE``. The flow that trains is deployed once: a retrain names its pipeline.
    With two pools retrains wait for another run to train, and must hold no worker of the pool that trains.

    Args:
        document: the manifest as written.
        placements: ``run.placement`` of each pipeline, by name, which is empty for the root.

    Raises:
        UserError: an entry names a pipeline that is not here, two deployments of a flow would have the same name, or
            retrains have no pool to wait on.
    """
    entries = document["deployments"]
    own = {(each["entrypoint"], each["name"]): _pipeline(each) for each in entries}
    deployments = [each for entry in entries for each in _expanded(entry, placements, own)]
    _refuse_twins(deployments)
    pools = {_pipeline(each): each["work_pool"]["name"] for each in deployments if each["entrypoint"] == _MONITOR}
    for each in deployments:
        if each["entrypoint"] == _RETRAIN and placements[_pipeline(each)] == "two-pools":
            if _pipeline(each) not in pools:
                raise UserError(
                    f"{MANIFEST} has no deployment of {_MONITOR}, on whose pool retrains wait with run.placement = "
                    "two-pools: add one, or set run.placement to one-worker."
                )
            each["work_pool"]["name"] = pools[_pipeline(each)]
    return {**document, "deployments": deployments}


def _pipeline(entry: Mapping[str, Any]) -> str:
    """The pipeline that an entry names; empty if it names none."""
    return (entry.get("parameters") or {}).get("pipeline") or ""


def _expanded(
    entry: Mapping[str, Any], placements: Mapping[str, str], own: Mapping[tuple[str, str], str]
) -> Iterator[dict[str, Any]]:
    """The deployments that an entry leads to.

    Args:
        entry: of the manifest.
        placements: as for :func:`placed`.
        own: the pipelines that the manifest's entries name, by entry point and name.

    Raises:
        UserError: the entry names a pipeline that is not here.
    """
    entrypoint, written, pipeline = entry["entrypoint"], entry["name"], _pipeline(entry)
    if pipeline and pipeline not in placements:
        raise UserError(f"{MANIFEST} has {written} for the pipeline {pipeline}, which is not here: correct it.")
    if pipeline or entrypoint == _TRAIN:
        names = {written: pipeline}
    else:
        names = {"-".join(filter(None, [written, each])): each for each in placements}
        names = {name: each for name, each in names.items() if not each or own.get((entrypoint, name)) != each}
    for name, each in names.items():
        deployment = {**entry, "name": name, "work_pool": {**entry["work_pool"]}}
        if each:
            deployment["parameters"] = {**(entry.get("parameters") or {}), "pipeline": each}
        yield deployment


def _refuse_twins(deployments: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two deployments of one name: Prefect would keep the later without a word.

    Raises:
        UserError: there are such.
    """
    names = [f"{each['entrypoint'].rpartition('.')[2]}/{each['name']}" for each in deployments]
    if twins := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"{MANIFEST} has two deployments {twins[0]}: rename one, or name its pipeline in its parameters."
        )


def repository() -> str:
    """The address from which workers clone the project.

    Raises:
        UserError: there is none, or it contains a secret, which every reader of the deployment would see.
    """
    address = os.environ.get(REPOSITORY) or _origin()
    if not address:
        raise UserError(f"{REPOSITORY} is not set, and this folder has no git remote: set it to what workers clone.")
    parts = urlsplit(address)
    login = parts.password or (parts.username and parts.scheme != "ssh")  # ssh://git@host names no secret
    if login or parts.query or parts.fragment:
        raise UserError(
            f"{REPOSITORY} contains a password or a token, which everyone could read: let workers use an SSH key."
        )
    return address


def _origin() -> str:
    try:
        return git("remote", "get-url", "origin")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""


def _pools(client: SyncPrefectClient, document: Mapping[str, Any]) -> Iterator[Row]:
    """Create a process pool for each name that has no pool; existing ones, of any type, are left as they are."""
    for name in sorted({each["work_pool"]["name"] for each in document["deployments"]}):
        try:
            client.read_work_pool(name)
            did = "unchanged"
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # a worker that starts at this moment creates its pool too
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            did = "made"
        yield "work pool", name, did


def _deployments(client: SyncPrefectClient, document: Mapping[str, Any], repository: str) -> list[Row]:
    declared = {f"{each['entrypoint'].rpartition('.')[2]}/{each['name']}": each for each in document["deployments"]}
    before = {name: _state(client, name) for name in declared}
    # Prefect would resume what a person has paused.
    paused = [{**each, "paused": bool((before[name] or {}).get("paused"))} for name, each in declared.items()]
    _prefect_deploy({**document, "deployments": paused}, repository)
    rows = []
    for name, each in declared.items():
        _drop_schedules(client, name, slugs(each))
        after = _state(client, name)
        did = "made" if before[name] is None else "unchanged" if after == before[name] else "changed"
        rows.append(("deployment", name, did))
    deployed = client.read_deployments(deployment_filter=DeploymentFilter(tags={"all_": [automations.TAG]}))
    for deployment in deployed:
        name = f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
        if name not in declared:
            rows.append(("deployment", name, "not in the file"))
    return rows


def _state(client: SyncPrefectClient, name: str) -> dict[str, Any] | None:
    """The fields of a deployment that the manifest decides, and whether it is paused; None if there is no such one."""
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    state = deployment.model_dump(mode="json", include=_COMPARED)
    state["limit"] = (state.pop("global_concurrency_limit") or {}).get("limit")
    schedules = [
        s.model_dump(mode="json", include={"schedule", "active", "slug", "parameters"}) for s in deployment.schedules
    ]
    return state | {"schedules": sorted(schedules, key=lambda schedule: schedule["slug"] or "")}


def slugs(entry: Mapping[str, Any]) -> set[str]:
    """The slugs of an entry's schedules, which may be none, or have none."""
    return {schedule["slug"] for schedule in entry.get("schedules") or () if schedule.get("slug")}


def _drop_schedules(client: SyncPrefectClient, name: str, declared: set[str]) -> None:
    """Delete schedules that the file no longer has; Prefect leaves them active next to the new ones."""
    deployment = client.read_deployment_by_name(name)
    for schedule in deployment.schedules:
        if schedule.slug and schedule.slug not in declared:
            client.delete_deployment_schedule(deployment.id, schedule.id)


def _prefect_deploy(document: Mapping[str, Any], repository: str) -> None:
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        manifest = Path(folder) / "prefect.yaml"
        with manifest.open("w", encoding="utf-8") as file:
            YAML().dump(document, file)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(manifest), "--all"]
        settings = {**os.environ, **QUIET, REPOSITORY: repository}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"Prefect refuses {MANIFEST}: {_reason(done.stderr + done.stdout)}")


def _reason(printed: str) -> str:
    """The last line that says why ``prefect deploy`` failed; a traceback's is followed by one that says nothing."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    telling = [line for line in lines if line != "An exception occurred."]
    return telling[-1] if telling else "no reason given"


def _automations() -> Iterator[Row]:
    receivers = []
    for receiver in automations.RECEIVERS:
        block, did = automations.keep_receiver(receiver)
        yield "alerts to", receiver.variable, did
        if block is not None:
            receivers.append((receiver, block))
    for automation in automations.declared(receivers):
        yield "automation", automation.name, automations.keep(automation)


def _show(rows: list[Row]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "name", "now"):
        table.add_column(column, overflow="fold")
    for what, name, did in rows:
        table.add_row(what, name, did, style=_COLORS.get(did))
    screen = console()
    screen.print(table)
    for _, name, did in rows:
        if did == "not in the file":
            screen.print(f"{MANIFEST} has no {name}: if it is not needed, run `prefect deployment delete {name}`.")
