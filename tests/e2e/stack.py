"""The local stack for tests: started, deployed to, looked at, and ended."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.local.s3 import inner_ports
from infra.local.settings import Stack, known_stack, read_env
from reflux.flows.local.prefect_server import free_port, is_free
from tests.trees import command_line
from tests.workspaces import git, make_tiny_project, until

LOCAL = Path(__file__).parents[2] / "infra" / "local"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass
class LocalStack:
    """A running stack.

    Attributes:
        state: its folder.
        home: a folder for what a test makes.
        environment: what a shell has that has loaded stack.env.
    """

    state: Path
    home: Path
    environment: dict[str, str]
    deployments: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> Stack:
        return known_stack(self.state)

    def local(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return local(name, "--state", str(self.state), *arguments)

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.home, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        address = f"{self.environment['PREFECT_API_URL']}{path}"
        answer = httpx.request(method, address, json=body, auth=(user, password), timeout=120)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def start(self, deployment: str, overrides: tuple[str, ...] = (), **parameters: Any) -> str:
        """Ask for a run of a deployment; returns its id."""
        deployment_id = self.prefect("GET", f"/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters or {"overrides": list(overrides)}, "state": {"type": "SCHEDULED"}}
        return self.prefect("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"]

    def flow_run(self, run: str) -> dict[str, Any]:
        return self.prefect("GET", f"/flow_runs/{run}")

    def ended(self, run: str, seconds: float = 900) -> dict[str, Any]:
        return until(lambda: (state := self.flow_run(run))["state_type"] in ENDED and state, seconds)

    def logs(self, run: str) -> str:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(log["message"] for log in self.prefect("POST", "/logs/filter", body))

    def mlflow(self) -> Any:
        from mlflow import MlflowClient

        os.environ.update({key: value for key, value in self.environment.items() if key.startswith("MLFLOW_TRACKING")})
        return MlflowClient()

    def parent(self, run: str, experiment: str = "shapes") -> Any:
        client = self.mlflow()
        experiment_id = client.get_experiment_by_name(experiment).experiment_id
        return client.search_runs([experiment_id], f"tags.`prefect.flow_run_id` = '{run}'")[0]

    def part(self, name: str) -> psutil.Process:
        """The process that a part's supervisor watches."""
        records = json.loads((self.state / "parts.json").read_text())["parts"]
        return psutil.Process(records[name]["pid"]).children()[0]

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all below it."""
        supervisor = psutil.Process(json.loads((self.state / "parts.json").read_text())["pid"])
        return [supervisor, *supervisor.children(recursive=True)]

    def at_work(self, *marks: str) -> list[psutil.Process]:
        """The stack's processes with one of ``marks`` in their command lines."""
        return [process for process in self.processes() if any(mark in command_line(process) for mark in marks)]


def local(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run one of infra/local's commands."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_", "AWS_"))}
    settings = kept | {"PYTHON": sys.executable} | variables
    return subprocess.run([LOCAL / name, *arguments], env=settings, capture_output=True, text=True, check=False)


def ports() -> dict[str, str]:
    """Free ports for a stack."""
    s3 = next(
        port
        for port in range(21_000 + os.getpid() % 3000, 30_000, 10)
        if all(map(is_free, (port, *inner_ports(port).http, *inner_ports(port).grpc)))
    )
    chosen = {f"REFLUX_{part}_PORT": str(free_port()) for part in ("POSTGRES", "MLFLOW", "PREFECT")}
    return chosen | {"REFLUX_S3_PORT": str(s3)}


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that the user whom Postgres runs as may pass through."""
    home = Path(tempfile.mkdtemp(prefix="reflux-stack-"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def local_stack() -> Iterator[LocalStack]:
    """A stack of its own."""
    with folder() as home:
        state = home / "state"
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "1"}  # of the 15 s that a run would wait for its worker
        done = local("up", "--state", str(state), REFLUX_TUNE_DATABASE="tune", **quick, **ports())
        try:
            assert done.returncode == 0, done.stdout + done.stderr + logs_of(state)
            kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_", "AWS_"))}
            environment = kept | read_env(state / "stack.env") | {"PREFECT_HOME": str(home / "prefect")}
            yield LocalStack(state, home, environment)
        finally:
            ended = local("down", "--state", str(state))
            assert ended.returncode == 0, ended.stderr


def logs_of(state: Path) -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted((state / "log").glob("*.log")))


def team_repository(stack: LocalStack) -> Path:
    """A tiny project in git whose two datasets only the stack's S3 has, as a team keeps them."""
    repository = make_tiny_project(stack.home / "repository")
    shutil.copytree(repository / "data" / "shapes", repository / "data" / "fewer")
    for picture in sorted((repository / "data" / "fewer" / "train").rglob("*-19.png")):
        picture.unlink()
    git(repository, "init", "-q", "-b", "main")
    remote = ("remote", "add", "--default", "shared", "s3://reflux-dvc")
    for arguments in (remote, ("add", "data/shapes", "data/fewer"), ("push",)):
        stack.run(sys.executable, "-m", "dvc", *arguments, cwd=repository)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    for name in ("shapes", "fewer"):
        shutil.rmtree(repository / "data" / name)
    shutil.rmtree(repository / ".dvc" / "cache")
    return repository


def deploy_to(stack: LocalStack, deployment: str, pool: str) -> str:
    """The same deployment once more, for another pool; returns its name."""
    known = stack.prefect("GET", f"/deployments/name/{deployment}")
    same = ("flow_id", "entrypoint", "pull_steps", "parameters", "job_variables", "path", "parameter_openapi_schema")
    body = {key: known[key] for key in same} | {"name": f"on-{pool}", "work_pool_name": pool}
    stack.prefect("POST", "/deployments/", body)
    return f"{deployment.split('/', maxsplit=1)[0]}/on-{pool}"


def deploy(stack: LocalStack, repository: Path) -> str:
    """Deploy as the documentation says; returns the retraining's deployment."""
    stack.environment["REFLUX_REPOSITORY"] = f"file://{repository}"
    stack.run(sys.executable, "-m", "reflux.flows.cli", "deploy", cwd=repository)
    return "retrain/retrain"


@contextmanager
def held_down(stack: LocalStack, part: str) -> Iterator[None]:
    """An outage: a part is killed and stays away for the block, for the stack's supervisor is stopped as well."""
    supervisor = stack.processes()[0]
    below = psutil.Process(json.loads((stack.state / "parts.json").read_text())["parts"][part]["pid"])
    supervisor.suspend()
    try:
        for process in below.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # Postgres' processes end with their first
                process.kill()
        until(lambda: below.status() == psutil.STATUS_ZOMBIE, 60)
        yield
    finally:
        supervisor.resume()
    until(lambda: stack.local("status").returncode == 0, 300)
