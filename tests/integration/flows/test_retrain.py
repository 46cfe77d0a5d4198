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

from components.core.params.file import override_params
from flows.local.environment import QUIET
from flows.local.prefect_server import PrefectServer, stop
from flows.local.supervised import supervised
from tests.trees import command_line
from tests.workspaces import git, make_tiny_project, until

pytestmark = pytest.mark.slow

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


@dataclass(frozen=True)
class Farm:
    """A running server, a worker, and the repository that the worker clones."""

    api: str
    environment: dict[str, str]
    repository: Path
    tracking_uri: str
    worker: "subprocess.Popen[str]"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.repository, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prefect(self, *arguments: str) -> str:
        return self.run(*PREFECT, *arguments)

    def reflux(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "flows.cli", *arguments)

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
        by_run = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        answer = httpx.post(f"{self.api}/logs/filter", json=by_run, timeout=30)
        return "\n".join(log["message"] for log in answer.raise_for_status().json())

    def parent(self, run_id: str):
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name("shapes")
        return client.search_runs([experiment.experiment_id], f"tags.`prefect.flow_run_id` = '{run_id}'")[0]


def deploy(farm: Farm) -> None:
    """Deploy what ``infra/prefect.yaml`` says, and then the same with its first run in seconds and not at night."""
    manifest = farm.repository / "infra" / "prefect.yaml"
    yaml = YAML()
    document = yaml.load(manifest.read_text())
    named = {each["name"]: each for each in document["deployments"]}
    named["monitor"]["schedules"] = []  # it runs when a test says so
    yaml.dump(document, manifest)
    farm.reflux("deploy")
    nightly = until(lambda: [run for run in farm.flow_runs() if run["auto_scheduled"]], 60)
    assert all("T02:00:00" in run["expected_start_time"] for run in nightly)
    for lead in (20, 60, 180):  # on a busy machine, deploying itself takes a while
        first = datetime.now(UTC) + timedelta(seconds=lead)
        schedule = {"slug": "nightly", "interval": 7200, "anchor_date": first.isoformat(), "active": True}
        named["retrain"]["schedules"] = [schedule]
        yaml.dump(document, manifest)
        farm.prefect("deploy", "--prefect-file", "infra/prefect.yaml", "--all")
        if until(farm.planned, 60)[0] - first < timedelta(minutes=1):
            return


@pytest.fixture(scope="module")
def farm(tmp_path_factory, mlflow_template) -> Iterator[Farm]:
    from mlflow import MlflowClient

    home = tmp_path_factory.mktemp("farm")
    repository = make_tiny_project(home / "repository")
    config = repository / ".dvc" / "config"
    config.write_text(f"{config.read_text()}    remote = store\n['remote \"store\"']\n    url = {home}/remote\n")
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    shutil.copy(mlflow_template, home / "mlflow.db")
    tracking_uri = f"sqlite:///{home}/mlflow.db"
    for name in ("shapes", "shapes/promotions", "shapes/monitor"):  # next to the database, as the clones are deleted
        MlflowClient(tracking_uri).create_experiment(name, artifact_location=(home / "mlartifacts" / name).as_uri())
    server = PrefectServer(home / "prefect")
    processes = []
    try:
        server.wait()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
        environment |= QUIET | server.environment | {"REFLUX_REPOSITORY": f"file://{repository}"}
        environment["PREFECT_CLIENT_MAX_RETRIES"] = "8"  # SQLite on a busy machine answers 503 now and then
        settings = server.environment | {
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MLFLOW_ARTIFACT_ROOT": str(home / "mlartifacts"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        for pool in ("gpu", "cpu"):
            with (home / f"{pool}.log").open("w") as log:
                worker = [*PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--limit", "1"]
                processes.append(supervised(worker, settings, stdout=log.fileno(), grace_s=10))
        built = Farm(server.api, environment, repository, tracking_uri, processes[0])
        deploy(built)
        yield built
    finally:
        for process in processes:
            stop(process)
        server.stop()


def test_a_scheduled_run_ends_in_a_registered_version(farm):
    from mlflow import MlflowClient

    planned = [run for run in farm.flow_runs() if run["auto_scheduled"]]
    first = min(planned, key=lambda run: run["expected_start_time"])["id"]
    ended = until(lambda: (run := farm.flow_run(first))["state_type"] in ENDED and run, 900)
    assert ended["state_type"] == "COMPLETED", farm.logs(first)

    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version_by_alias("shapes-student", "champion")
    assert version.tags["prefect.flow_run_id"] == first
    assert version.tags["git.sha"] == git(farm.repository, "rev-parse", "HEAD")
    parent = farm.parent(first)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["git.dirty"] == "false"
    branch = parent.data.tags["dvc.lock"]
    assert branch == f"retrain/{parent.info.run_name.removeprefix('retrain-')}"
    assert parent.data.tags["dvc.data_md5"] in git(farm.repository, "show", f"{branch}:dvc.lock")
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


def test_a_run_that_finds_nothing_changed_is_skipped_and_says_why(farm):
    from mlflow import MlflowClient

    ended = run_and_wait(farm, "retrain/retrain")
    run = ended["id"]
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "Skipped"), farm.logs(run)
    assert ended["state"]["message"].startswith("Nothing has changed: data, code and params are those of retrain-")
    assert ended["state"]["message"].endswith("shapes-student version 1 (promoted).")
    assert ended["name"].endswith("skipped")

    client = MlflowClient(farm.tracking_uri)
    experiment = client.get_experiment_by_name("shapes")
    assert not client.search_runs([experiment.experiment_id], f"tags.`prefect.flow_run_id` = '{run}'")
    assert len(client.search_model_versions("name = 'shapes-student'")) == 1
    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=30).json()
    assert run not in {task["flow_run_id"] for task in tasks}


def run_and_wait(farm: Farm, deployment: str, *arguments: str, seconds: float = 900) -> dict:
    """Run a deployment now, and return how it ended."""
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", deployment, *arguments)
    new = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]], 60)[0]
    return until(lambda: (run := farm.flow_run(new))["state_type"] in ENDED and run, seconds)


@pytest.mark.long
def test_the_monitor_asks_once_for_a_retrain_when_enough_checks_find_new_images_different(farm):
    from mlflow import MlflowClient
    from PIL import Image, ImageOps

    client = MlflowClient(farm.tracking_uri)
    champions = lambda: client.search_registered_models("name = 'shapes-student'")  # noqa: E731
    until(lambda: champions() and champions()[0].aliases.get("champion"), 300)
    quiet = run_and_wait(farm, "monitor/monitor")
    assert quiet["state_name"] == "Skipped", farm.logs(quiet["id"])
    assert "is that of the champion, shapes-student version 1." in quiet["state"]["message"]

    folder = farm.repository / "data" / "shapes" / "unlabeled"
    for index, image in enumerate(sorted((farm.repository / "data" / "shapes" / "train").rglob("*.png"))):
        ImageOps.invert(Image.open(image)).save(folder / f"new-{index}.png")
    git(farm.repository, "add", "data")
    git(farm.repository, "commit", "-qm", "negatives")

    def retrains() -> list[dict]:
        return [run for run in farm.flow_runs() if "monitor" in run["tags"]]

    first = run_and_wait(farm, "monitor/monitor")
    assert first["state_type"] == "COMPLETED", farm.logs(first["id"])
    assert retrains() == []
    second = run_and_wait(farm, "monitor/monitor")
    assert second["state_type"] == "COMPLETED", farm.logs(second["id"])
    (retrain,) = retrains()
    third = run_and_wait(farm, "monitor/monitor")
    assert third["state_type"] == "COMPLETED", farm.logs(third["id"])
    assert len(retrains()) == 1

    experiment = client.get_experiment_by_name("shapes/monitor")
    checks = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    assert [check.data.tags["differs"] for check in checks] == ["true"] * 3
    assert {file.path for file in client.list_artifacts(checks[0].info.run_id)} == {"drift.md", "drift.png"}
    assert "60 images are new since champion version 1; they differ in " in checks[1].data.tags["mlflow.note.content"]
    assert "A retrain is started: " in checks[1].data.tags["mlflow.note.content"]
    assert "was started before" in checks[2].data.tags["mlflow.note.content"]

    ended = until(lambda: (run := farm.flow_run(retrain["id"]))["state_type"] in ENDED and run, 600)
    assert ended["state_name"] == "Completed", farm.logs(retrain["id"])
    assert client.get_model_version("shapes-student", "2").tags["dvc.data_md5"] == checks[0].data.tags["dvc.data_md5"]


@pytest.mark.long
def test_a_version_is_judged_again_by_the_promote_deployment(farm):
    from mlflow import MlflowClient

    client = MlflowClient(farm.tracking_uri)
    until(lambda: client.search_model_versions("name = 'shapes-student'"), 300)
    ended = run_and_wait(farm, "promote/promote", "--param", "version=1", "--param", "expected_champion=99")
    assert ended["state_type"] == "FAILED"
    assert "ChampionMoved" in ended["state"]["message"]
    ended = run_and_wait(farm, "promote/promote", "--param", "version=1")
    assert ended["state_type"] == "COMPLETED", farm.logs(ended["id"])
    assert ended["state"]["message"].startswith("shapes-student version 1 is ")


@pytest.mark.long
@pytest.mark.parametrize("given_by", ["the page", "the command"])
def test_a_run_that_needs_approval_is_suspended_and_goes_on_without_training(farm, given_by):
    from mlflow import MlflowClient

    model = f"approved-by-{given_by.replace(' ', '-')}"
    overrides = json.dumps(["registry.approval=human", f"registry.model_name={model}"])
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    run = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]], 30)[0]
    ended = ("PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert until(lambda: (f := farm.flow_run(run)["state_type"]) in ended and f, 300) == "PAUSED", farm.logs(run)
    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version(model, "1")
    assert (version.tags["approval.state"], version.tags["approval.flow_run_id"]) == ("awaited", run)
    # Prefect's worker ends with an error when a run comes back before it has noted that its process is gone.
    until(lambda: not at_work(farm, "prefect.engine", "prefect.runner"), 60)
    time.sleep(2)

    if given_by == "the page":
        word = {"run_input": {"by": "ada@lab", "reason": "seen on the new cameras"}}
        resume = f"{farm.api}/flow_runs/{run}/resume"
        # Prefect answers 503 while its SQLite is busy; a person at the page would press again.
        until(lambda: httpx.post(resume, json=word, timeout=30).is_success, 60)
    else:
        shutil.copy(farm.repository / "params.yaml", farm.repository / "kept.yaml")
        settings = farm.environment | {"MLFLOW_TRACKING_URI": farm.tracking_uri, "USER": "ada"}
        override_params(json.loads(overrides), farm.repository / "params.yaml")
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
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    run = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]], 30)[0]
    killed = until(lambda: at_work(farm, "components.distill"), 600)
    for process in killed:
        process.kill()
    # A stage that was killed is tried again; then someone cancels the run.
    until(lambda: (again := at_work(farm, "components.distill")) and not set(again) & set(killed), 600)
    farm.prefect("flow-run", "cancel", run)
    until(lambda: farm.flow_run(run)["state_type"] == "CANCELLED", 60)
    until(lambda: not at_work(farm, "components.", "supervise.py"), 30)
    assert farm.parent(run).info.status == "KILLED"


def test_with_two_pools_the_gpu_trains_and_the_cpu_does_the_rest(farm):
    """Student and control are changed, so that they are computed and what comes before is restored."""
    from mlflow import MlflowClient

    here = '["run.placement=two-pools"]'
    refused = run_and_wait(farm, "retrain/retrain", "--param", f"overrides={here}")
    assert "itself occupies the worker of" in refused["state"]["message"]

    override_params(["run.placement=two-pools", "student.steps=41"], farm.repository / "params.yaml")
    git(farm.repository, "commit", "-qam", "two pools")
    farm.reflux("deploy")
    ended = run_and_wait(farm, "retrain/retrain")
    assert ended["state_type"] == "COMPLETED", farm.logs(ended["id"])
    assert ended["work_pool_name"] == "cpu"
    training = next(run for run in farm.flow_runs() if run["parent_task_run_id"])
    assert (training["work_pool_name"], training["state_type"]) == ("gpu", "COMPLETED"), farm.logs(training["id"])

    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=30).json()
    names = {id: {task["name"] for task in tasks if task["flow_run_id"] == id} for id in (ended["id"], training["id"])}
    assert names[training["id"]] >= {"pull", "pretrain", "finetune", "label", "distill", "control", "push control"}
    assert names[ended["id"]] >= {"ingest", "validate", "pull", "compress", "evaluate", "register", "promote"}
    assert not names[training["id"]] & {"ingest", "validate", "compress", "evaluate"}
    assert not names[ended["id"]] & {"pretrain", "finetune", "label", "distill", "control"}

    client, parent = MlflowClient(farm.tracking_uri), farm.parent(ended["id"])
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    computed = {run.info.run_name: run.info.status for run in client.search_runs([parent.info.experiment_id], below)}
    assert computed == dict.fromkeys(("distill", "control", "compress", "evaluate"), "FINISHED")
    assert {key for key in parent.data.tags if key.startswith("restored.")} == {
        f"restored.{name}" for name in ("ingest", "validate", "pretrain", "finetune", "label")
    }
    branch = git(farm.repository, "show", f"{parent.data.tags['dvc.lock']}:dvc.lock")
    assert all(f"  {name}:" in branch for name in ("ingest", "label", "control", "evaluate"))
    (version,) = client.search_model_versions(f"tags.`prefect.flow_run_id` = '{ended['id']}'")
    assert version.tags["git.sha"] == git(farm.repository, "rev-parse", "HEAD")


@pytest.mark.long
def test_with_two_pools_a_cancelled_run_cancels_its_training(farm):
    overrides = '["student.steps=100000", "seed=2"]'
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    new = until(lambda: [r for r in farm.flow_runs() if r["id"] not in before and r["parent_task_run_id"]], 120)
    training = new[0]["id"]
    until(lambda: at_work(farm, "components.finetune"), 120)
    run = next(r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["parent_task_run_id"])
    farm.prefect("flow-run", "cancel", run)
    for each in (run, training):
        until(lambda each=each: farm.flow_run(each)["state_type"] == "CANCELLED", 90)
    until(lambda: not at_work(farm, "components.", "supervise.py"), 30)
    assert farm.parent(run).info.status == "KILLED"


def at_work(farm: Farm, *marks: str) -> list[psutil.Process]:
    """The stages' processes below the worker, known by their command lines."""
    below = psutil.Process(farm.worker.pid).children(recursive=True)
    return [process for process in below if any(mark in command_line(process) for mark in marks)]
