"""The deployment as it runs in production: a Prefect server, a process worker, a schedule, a cancellation."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from ruamel.yaml import YAML

from components.core import params as parameters
from flows.environment import QUIET
from flows.server import PrefectServer, stop
from flows.stages import supervised

pytestmark = pytest.mark.slow

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


@dataclass(frozen=True)
class Farm:
    """A running server, a worker, and the repository that the worker clones."""

    api: str
    environment: dict[str, str]
    repository: Path
    tracking_uri: str
    worker: "subprocess.Popen[str]"

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run(
            [*PREFECT, *arguments],
            cwd=self.repository,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def flow_runs(self) -> list[dict]:
        answer = httpx.post(f"{self.api}/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}, timeout=30)
        return answer.raise_for_status().json()

    def planned(self) -> list[datetime]:
        """When scheduled runs are due, by the schedule that is deployed now."""
        due = [datetime.fromisoformat(run["expected_start_time"]) for run in self.flow_runs() if run["auto_scheduled"]]
        return [at for at in due if at.minute or at.second or at.microsecond]

    def flow_run(self, run_id: str) -> dict:
        return httpx.get(f"{self.api}/flow_runs/{run_id}", timeout=30).raise_for_status().json()

    def logs(self, run_id: str) -> str:
        found = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        answer = httpx.post(f"{self.api}/logs/filter", json=found, timeout=30)
        return "\n".join(log["message"] for log in answer.raise_for_status().json())

    def parent(self, run_id: str):
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name("shapes")
        return client.search_runs([experiment.experiment_id], f"tags.`prefect.flow_run_id` = '{run_id}'")[0]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def deploy(farm: Farm) -> None:
    """Deploy what ``infra/prefect.yaml`` says, and then the same with its first run in seconds and not at night."""
    farm.prefect("deploy", "--prefect-file", "infra/prefect.yaml", "--all")
    nightly = until(lambda: [run for run in farm.flow_runs() if run["auto_scheduled"]], 60)
    assert all("T02:00:00" in run["expected_start_time"] for run in nightly)
    manifest = farm.repository / "infra" / "prefect.yaml"
    yaml = YAML()
    document = yaml.load(manifest.read_text())
    for lead in (20, 60, 180):  # on a busy machine, deploying itself takes a while
        first = datetime.now(UTC) + timedelta(seconds=lead)
        schedule = {"slug": "nightly", "interval": 7200, "anchor_date": first.isoformat(), "active": True}
        document["deployments"][0]["schedules"] = [schedule]
        with manifest.open("w") as file:
            yaml.dump(document, file)
        farm.prefect("deploy", "--prefect-file", "infra/prefect.yaml", "--all")
        if until(farm.planned, 60)[0] - first < timedelta(minutes=1):
            return


@pytest.fixture(scope="module")
def farm(tmp_path_factory, make_tiny_project, mlflow_template) -> Iterator[Farm]:
    from mlflow import MlflowClient

    home = tmp_path_factory.mktemp("farm")
    repository = make_tiny_project(home / "repository")
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    shutil.copy(mlflow_template, home / "mlflow.db")
    tracking_uri = f"sqlite:///{home}/mlflow.db"
    for name in ("shapes", "shapes/promotions"):  # beside the database, as the clones are deleted
        MlflowClient(tracking_uri).create_experiment(name, artifact_location=(home / "mlartifacts" / name).as_uri())
    server = PrefectServer(home / "prefect")
    processes = []
    try:
        server.wait()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
        environment |= QUIET | server.environment | {"REFLUX_REPOSITORY": f"file://{repository}"}
        settings = server.environment | {
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MLFLOW_ARTIFACT_ROOT": str(home / "mlartifacts"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        with (home / "worker.log").open("w") as log:
            worker = [*PREFECT, "worker", "start", "--pool", "gpu", "--type", "process", "--limit", "1"]
            processes.append(supervised(worker, settings, stdout=log.fileno(), grace_s=10))
        built = Farm(server.api, environment, repository, tracking_uri, processes[0])
        built.prefect("work-pool", "create", "gpu", "--type", "process", "--overwrite")
        deploy(built)
        yield built
    finally:
        for process in processes:
            stop(process)
        server.stop()


def until(condition, seconds: float):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return found


def test_a_scheduled_run_ends_in_a_registered_version(farm):
    from mlflow import MlflowClient

    planned = [run for run in farm.flow_runs() if run["auto_scheduled"]]
    first = min(planned, key=lambda run: run["expected_start_time"])["id"]
    done = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    ended = until(lambda: (run := farm.flow_run(first))["state_type"] in done and run, 300)
    assert ended["state_type"] == "COMPLETED", farm.logs(first)

    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version_by_alias("shapes-student", "champion")
    assert version.tags["prefect.flow_run_id"] == first
    assert version.tags["git.sha"] == git(farm.repository, "rev-parse", "HEAD")
    parent = farm.parent(first)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["git.dirty"] == "false"
    later = [run for run in farm.flow_runs() if run["auto_scheduled"] and run["state_type"] == "SCHEDULED"]
    assert later

    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=30).json()
    assert {task["name"] for task in tasks} >= {"ingest", "control", "distill", "evaluate", "register", "promote"}
    artifacts = httpx.post(f"{farm.api}/artifacts/filter", json={}, timeout=30).json()
    result = next(artifact["data"] for artifact in artifacts if artifact["key"] == "retrain-result")
    assert "| student |" in result
    assert "shapes-student version 1 is the new @champion." in result
    assert "VALIDATED" in next(artifact["data"] for artifact in artifacts if artifact["key"] == "promotion")
    page = {artifact["key"]: artifact["data"] for artifact in artifacts if artifact["flow_run_id"] == first}
    assert float(page["retrain-progress"]) == 100
    table = page["retrain-table"] if isinstance(page["retrain-table"], list) else json.loads(page["retrain-table"])
    assert [row["model"] for row in table] == ["teacher", "student", "control", "student, int8"]
    assert re.fullmatch(r"shapes \d{4}-\d\d-\d\d \d\d:\d\d v1 promoted", ended["name"])


@pytest.mark.long
@pytest.mark.parametrize("given_by", ["the page", "the command"])
def test_a_run_that_needs_approval_is_suspended_and_goes_on_without_training(farm, given_by):
    from mlflow import MlflowClient

    model = f"approved-by-{given_by.replace(' ', '-')}"
    overrides = json.dumps(["registry.approval=human", f"registry.model_name={model}"])
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/scheduled", "--param", f"overrides={overrides}")
    run = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]], 30)[0]
    ended = ("PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert until(lambda: (f := farm.flow_run(run)["state_type"]) in ended and f, 300) == "PAUSED", farm.logs(run)
    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version(model, "1")
    assert (version.tags["approval.state"], version.tags["approval.flow_run_id"]) == ("awaited", run)

    if given_by == "the page":
        word = {"run_input": {"by": "ada@lab", "reason": "seen on the new cameras"}}
        httpx.post(f"{farm.api}/flow_runs/{run}/resume", json=word, timeout=30).raise_for_status()
    else:
        shutil.copy(farm.repository / "params.yaml", farm.repository / "kept.yaml")
        settings = farm.environment | {"MLFLOW_TRACKING_URI": farm.tracking_uri, "USER": "ada"}
        parameters.override(json.loads(overrides), farm.repository / "params.yaml")
        command = [sys.executable, "-m", "flows.cli", "approve", "1", "--reason", "seen on the new cameras"]
        done = subprocess.run(
            command, cwd=farm.repository, env=settings, capture_output=True, text=True, check=False, timeout=120
        )
        shutil.move(farm.repository / "kept.yaml", farm.repository / "params.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{model} version 1 is the new @champion." in done.stdout

    assert until(lambda: (f := farm.flow_run(run)["state_type"]) in ended[1:] and f, 120) == "COMPLETED", farm.logs(run)
    version = client.get_model_version_by_alias(model, "champion")
    assert version.tags["approval.by"].startswith("ada@")
    assert version.tags["approval.reason"] == "seen on the new cameras"
    experiment = client.get_experiment_by_name("shapes")
    computed = f"tags.run_kind = 'pipeline' AND tags.`prefect.flow_run_id` = '{run}'"
    assert len(client.search_runs([experiment.experiment_id], computed)) == 1


def test_a_cancelled_run_leaves_no_process_and_is_killed_in_mlflow(farm):
    overrides = '["student.steps=100000", "seed=1"]'
    farm.prefect("deployment", "run", "retrain/scheduled", "--param", f"overrides={overrides}")
    run = until(lambda: next((r for r in farm.flow_runs() if not r["auto_scheduled"]), None), 30)["id"]
    killed = until(lambda: at_work(farm, "components.distill"), 120)
    for process in killed:
        process.kill()
    # A stage that was killed is tried again; then someone cancels the run.
    until(lambda: (again := at_work(farm, "components.distill")) and not set(again) & set(killed), 120)
    farm.prefect("flow-run", "cancel", run)
    until(lambda: farm.flow_run(run)["state_type"] == "CANCELLED", 60)
    until(lambda: not at_work(farm, "components.", "supervise.py"), 30)
    assert farm.parent(run).info.status == "KILLED"


def at_work(farm: Farm, *marks: str) -> list[psutil.Process]:
    """The stages' processes below the worker, known by their command lines."""
    found = []
    for process in psutil.Process(farm.worker.pid).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(mark in line for mark in marks):
            found.append(process)
    return found
