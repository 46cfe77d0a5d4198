"""``reflux deploy`` against a real Prefect server: everything is made once, and what people changed is respected."""

import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.automations import Automation
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.flows.commands.servers import automations
from reflux.flows.local.environment import QUIET
from reflux.flows.pipeline import two_pools
from tests.receiver import Receiver
from tests.workspaces import PACKAGE, make_tiny_project, until

pytestmark = pytest.mark.slow

ROWS = {
    "cpu", "gpu", "retrain/retrain", "train/train", "tune/tune", "monitor/monitor", "promote/promote", "reflux: lost",
    "reflux: stuck", "reflux: failed", "reflux: late", "REFLUX_SLACK_URL", "REFLUX_ALERT_URL",
}  # fmt: skip


@pytest.fixture(scope="module")
def receivers():
    receivers = {"REFLUX_SLACK_URL": Receiver(), "REFLUX_ALERT_URL": Receiver()}
    yield receivers
    for receiver in receivers.values():
        receiver.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_tiny_project(tmp_path_factory.mktemp("deploy") / "project")


@pytest.fixture(scope="module")
def deploy(project, receivers, prefect_api):
    """Runs the command; returns what it says of each row."""

    def run() -> dict[str, str]:
        addresses = {name: f"http://127.0.0.1:{receiver.port}/secret" for name, receiver in receivers.items()}
        settings = {**os.environ, **QUIET, **addresses, "PYTHONPATH": str(project / PACKAGE)}
        settings["PREFECT_API_URL"] = prefect_api
        settings["REFLUX_REPOSITORY"] = "https://git.example.org/team/reflux.git"
        command = [sys.executable, "-m", "reflux.flows.cli", "deploy"]
        done = subprocess.run(command, cwd=project, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "secret" not in done.stdout + done.stderr
        rows = re.findall(r"^(?:work pool|deployment|alerts to|automation) +(\S.*?) {2,}(\S.*?) *$", done.stdout, re.M)
        return dict(rows)

    return run


@pytest.fixture(scope="module")
def deployed(deploy) -> dict[str, str]:
    return deploy()


def test_everything_is_made_once_and_a_second_call_changes_nothing(deploy, deployed, prefect_api):
    assert deployed == dict.fromkeys(ROWS, "made")
    deployments = read(prefect_api)
    assert deploy() == dict.fromkeys(ROWS, "unchanged")
    assert read(prefect_api) == deployments
    retrain, monitor, promote = (deployments[name] for name in ("retrain", "monitor", "promote"))
    assert retrain["work_pool_name"] == "gpu"
    assert (monitor["work_pool_name"], promote["work_pool_name"]) == ("cpu", "cpu")
    assert retrain["global_concurrency_limit"]["limit"] == 1
    assert retrain["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [s["schedule"]["cron"] for s in retrain["schedules"]] == ["0 2 * * *"]
    assert [s["schedule"]["cron"] for s in monitor["schedules"]] == ["17 * * * *"]
    assert promote["schedules"] == []
    assert [(s["slug"], s["active"]) for s in deployments["tune"]["schedules"]] == [("weekly", False)]


@pytest.mark.long
def test_with_two_pools_a_retrain_holds_no_gpu_while_it_waits(deploy, deployed, project, prefect_api):
    override_params(["run.placement=two-pools"], project / "params.yaml")
    assert deploy() == dict.fromkeys(ROWS, "unchanged") | {"retrain/retrain": "changed"}
    deployments = read(prefect_api)
    assert (deployments["retrain"]["work_pool_name"], deployments["train"]["work_pool_name"]) == ("cpu", "gpu")
    (clone,) = deployments["train"]["pull_steps"][0].values()
    assert clone["commit_sha"] == "{{ $REFLUX_COMMIT }}"
    override_params(["run.placement=one-worker"], project / "params.yaml")
    assert deploy() == dict.fromkeys(ROWS, "unchanged") | {"retrain/retrain": "changed"}
    assert read(prefect_api)["retrain"]["work_pool_name"] == "gpu"


@pytest.mark.long
def test_a_paused_deployment_stays_paused_and_a_renamed_schedule_replaces_the_old_one(
    deploy, deployed, project, prefect_api
):
    id = read(prefect_api)["retrain"]["id"]
    ask("POST", f"{prefect_api}/deployments/{id}/pause_deployment")
    manifest, yaml = project / "infra" / "prefect.yaml", YAML()
    document = yaml.load(manifest.read_text())
    retrain = next(each for each in document["deployments"] if each["name"] == "retrain")
    retrain["schedules"] = [{"slug": "noon", "cron": "0 12 * * *", "timezone": "UTC", "active": True}]
    yaml.dump(document, manifest)
    assert deploy() == dict.fromkeys(ROWS, "unchanged") | {"retrain/retrain": "changed"}
    retrain = read(prefect_api)["retrain"]
    assert retrain["paused"]
    assert [(s["slug"], s["schedule"]["cron"]) for s in retrain["schedules"]] == [("noon", "0 12 * * *")]
    ask("POST", f"{prefect_api}/deployments/{id}/resume_deployment")


def test_a_run_that_crashes_is_told_to_both_receivers_with_the_reason(deployed, receivers, prefect_api):
    run = start(prefect_api, read(prefect_api)["promote"]["id"], {"version": 1})
    state(prefect_api, run, "CRASHED", "Crashed", 'the "machine" is gone')
    until(lambda: all(receiver.got for receiver in receivers.values()))
    slack, alert = (json.loads(receivers[name].got[-1][1]) for name in ("REFLUX_SLACK_URL", "REFLUX_ALERT_URL"))
    name = ask("GET", f"{prefect_api}/flow_runs/{run}")["name"]
    assert slack["text"].startswith(f'*promote: {name} is Crashed*\nthe "machine" is gone\n')
    assert isinstance(alert.pop("url"), str)  # empty, as this server serves no pages
    reason = {"state": "Crashed", "message": 'the "machine" is gone'}
    assert alert == {"deployment": "promote", "run": name, "id": run, **reason}


def crashed(api: str, run: str) -> None:
    until(lambda: ask("GET", f"{api}/flow_runs/{run}")["state_type"] == "CRASHED")


@pytest.mark.long
def test_a_run_without_a_sign_of_life_is_crashed_and_one_that_was_skipped_is_not(deployed, prefect_api, monkeypatch):
    monkeypatch.setattr(automations, "LOST_S", 10)  # the shortest that Prefect takes
    lost = automations.declared([])[0]
    assert automations.keep(lost) == "changed"
    try:
        id = read(prefect_api)["promote"]["id"]
        dead, skipped = (start(prefect_api, id, {"version": 1}) for _ in range(2))
        other = ask("POST", f"{prefect_api}/flow_runs/", foreign(prefect_api))["id"]
        for run, tag in ((dead, "reflux"), (skipped, "reflux"), (other, "theirs")):
            state(prefect_api, run, "RUNNING", "Running")
            beat(prefect_api, run, tag)
        state(prefect_api, skipped, "COMPLETED", "Skipped")
        crashed(prefect_api, dead)
        later = start(prefect_api, id, {"version": 1})  # once it is noticed, the others had as long as it
        state(prefect_api, later, "RUNNING", "Running")
        beat(prefect_api, later, "reflux")
        crashed(prefect_api, later)
        names = {run: ask("GET", f"{prefect_api}/flow_runs/{run}")["state_name"] for run in (skipped, other)}
        assert names == {skipped: "Skipped", other: "Running"}
    finally:
        Automation.read(name=lost.name).delete()


def test_who_can_not_train_elsewhere_is_told_why_before_anything_is_computed(
    deployed, project, prefect_api, monkeypatch
):
    monkeypatch.chdir(project)
    there = read(prefect_api)
    on_gpu = start(prefect_api, there["retrain"]["id"], {})
    with pytest.raises(UserError, match="this run itself occupies the worker of the pool gpu"):
        two_pools.pool(on_gpu)
    on_cpu = start(prefect_api, there["promote"]["id"], {"version": 1})
    with pytest.raises(UserError, match="the project has no default DVC remote"):
        two_pools.pool(on_cpu)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "PREFECT_API_URL is not set"),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "does not answer"),
        ({"REFLUX_REPOSITORY": "https://ada:secret@git.example.org/reflux.git"}, "contains a password"),
        ({"REFLUX_REPOSITORY": "file:///srv/x", "REFLUX_ALERT_URL": "http://alerts.example.org/"}, "is not https://"),
    ],
)
def test_what_can_not_be_deployed_is_one_sentence(project, prefect_api, settings, sentence):
    if settings.keys() & {"REFLUX_REPOSITORY"}:
        settings = {"PREFECT_API_URL": prefect_api, **settings}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REFLUX_"))}
    command = [sys.executable, "-m", "reflux.flows.cli", "deploy"]
    done = subprocess.run(
        command, cwd=project, env=kept | QUIET | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert sentence in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def read(api: str) -> dict[str, dict]:
    """The deployments by name, without what changes at every call."""
    deployments = ask("POST", f"{api}/deployments/filter", {})
    for deployment in deployments:
        for noise in ("updated", "last_polled", "status", "version_id", "version_info", "branch", "labels"):
            deployment.pop(noise, None)
        (deployment.get("global_concurrency_limit") or {}).pop("updated", None)
        for schedule in deployment["schedules"]:
            for noise in ("id", "created", "updated"):
                schedule.pop(noise, None)
    return {deployment["name"]: deployment for deployment in deployments if "reflux" in deployment["tags"]}


def ask(method: str, address: str, body: object = None) -> Any:
    """Ask the API, and again while it says 503 because it is too busy, as Prefect's own client does."""

    def asked() -> httpx.Response | None:
        answer = httpx.request(method, address, json=body, timeout=120)
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer.raise_for_status()

    answer = until(asked)
    return answer.json() if answer.content else None


def start(api: str, deployment: str, parameters: dict) -> str:
    return ask("POST", f"{api}/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]


def foreign(api: str) -> dict:
    flow = ask("POST", f"{api}/flows/", {"name": "theirs"})["id"]
    return {"flow_id": flow, "tags": ["theirs"]}


def state(api: str, run: str, type: str, name: str, message: str = "") -> None:
    change = {"state": {"type": type, "name": name, "message": message}, "force": True}
    ask("POST", f"{api}/flow_runs/{run}/set_state", change)


def beat(api: str, run: str, tag: str) -> None:
    """A heartbeat, as a flow run sends it."""
    event = {
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
        "payload": {},
        "id": str(uuid.uuid4()),
    }
    ask("POST", f"{api}/events", [event])
