"""Production on one machine: a Prefect server, process workers, and a repository that they clone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
from ruamel.yaml import YAML

from reflux.components.core.params.file import override_params
from reflux.flows.local.environment import QUIET
from reflux.flows.local.prefect_server import PrefectServer, stop
from reflux.flows.local.supervised import supervised
from tests.trees import command_line
from tests.workspaces import git, make_tiny_project, until

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
        return self.run(sys.executable, "-m", "reflux.flows.cli", *arguments)

    def flow_runs(self) -> list[dict]:
        answer = httpx.post(f"{self.api}/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}, timeout=120)
        return answer.raise_for_status().json()

    def planned(self) -> list[datetime]:
        """When scheduled runs are due, by the schedule that is deployed now."""
        due = [datetime.fromisoformat(run["expected_start_time"]) for run in self.flow_runs() if run["auto_scheduled"]]
        return [at for at in due if at.minute or at.second or at.microsecond]

    def flow_run(self, run_id: str) -> dict:
        return httpx.get(f"{self.api}/flow_runs/{run_id}", timeout=120).raise_for_status().json()

    def logs(self, run_id: str) -> str:
        by_run = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        answer = httpx.post(f"{self.api}/logs/filter", json=by_run, timeout=120)
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
    nightly = until(lambda: [run for run in farm.flow_runs() if run["auto_scheduled"]])
    assert all("T02:00:00" in run["expected_start_time"] for run in nightly)
    for lead in (20, 60, 180):  # on a busy machine, deploying itself takes a while
        first = datetime.now(UTC) + timedelta(seconds=lead)
        schedule = {"slug": "nightly", "interval": 7200, "anchor_date": first.isoformat(), "active": True}
        named["retrain"]["schedules"] = [schedule]
        yaml.dump(document, manifest)
        farm.prefect("deploy", "--prefect-file", "infra/prefect.yaml", "--all")
        if until(farm.planned)[0] - first < timedelta(minutes=1):
            return


@contextmanager
def running_farm(
    home: Path,
    mlflow_template: Path,
    projects: Sequence[str] = ("shapes",),
    prepare: Callable[[Path], object] = lambda _: None,
    deploy: Callable[[Farm], object] = deploy,
) -> Iterator[Farm]:
    """A farm of its own in a folder, deployed, with a worker for each pool.

    Args:
        home: the folder.
        mlflow_template: a database of MLflow to begin with.
        projects: ``project.name`` of each pipeline.
        prepare: changes the repository, before the first commit.
        deploy: deploys it.
    """
    from mlflow import MlflowClient

    repository = make_tiny_project(home / "repository")
    config = repository / ".dvc" / "config"
    config.write_text(f"{config.read_text()}    remote = store\n['remote \"store\"']\n    url = {home}/remote\n")
    git(repository, "init", "-q", "-b", "main")
    prepare(repository)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    shutil.copy(mlflow_template, home / "mlflow.db")
    tracking_uri = f"sqlite:///{home}/mlflow.db"
    for name in (
        f"{name}{part}" for name in projects for part in ("", "/promotions", "/monitor")
    ):  # next to the database, as the clones are deleted
        MlflowClient(tracking_uri).create_experiment(name, artifact_location=(home / "mlartifacts" / name).as_uri())
    server = PrefectServer(home / "prefect")
    processes = []
    try:
        server.wait()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
        environment |= QUIET | server.environment | {"REFLUX_REPOSITORY": f"file://{repository}"}
        patient = {"PREFECT_CLIENT_MAX_RETRIES": "8"}  # SQLite on a busy machine answers 503 now and then
        environment |= patient
        settings = (
            server.environment
            | patient
            | {
                "MLFLOW_TRACKING_URI": tracking_uri,
                "MLFLOW_ARTIFACT_ROOT": str(home / "mlartifacts"),
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            }
        )
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


def ask_for(farm: Farm, *settings: str) -> None:
    """Commit other params, and deploy what they say."""
    override_params(list(settings), farm.repository / "params.yaml")
    git(farm.repository, "commit", "-qam", " ".join(settings))
    farm.reflux("deploy")


def run_and_wait(farm: Farm, deployment: str, *arguments: str, seconds: float = 900) -> dict:
    """Run a deployment now, and return how it ended."""
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", deployment, *arguments)
    new = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]])[0]
    return until(lambda: (run := farm.flow_run(new))["state_type"] in ENDED and run, seconds)


def at_work(farm: Farm, *marks: str) -> list[psutil.Process]:
    """The stages' processes below the worker, known by their command lines."""
    below = psutil.Process(farm.worker.pid).children(recursive=True)
    return [process for process in below if any(mark in command_line(process) for mark in marks)]
