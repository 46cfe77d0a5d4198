"""Whole retrainings in the containers of Compose and Kubernetes, on a stack that runs outside of them."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.containers import Container, start_in, why_not
from tests.e2e.stack import LocalStack, logs_of
from tests.manifests import INFRA, compose_service, of_a_job, of_compose, with_folder
from tests.servers import has_postgres

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]
CLONED = "/srv/repository"
CLIENT = ("MLFLOW_TRACKING", "PREFECT_API", "AWS_")


def deploy_to(stack: LocalStack, deployment: str, pool: str) -> str:
    """The same deployment for another pool, from where its containers have the repository; returns its id."""
    known = stack.prefect("GET", f"/deployments/name/{deployment}")
    same = ("flow_id", "entrypoint", "pull_steps", "parameters", "job_variables", "path", "parameter_openapi_schema")
    body = {key: known[key] for key in same} | {"name": f"in-container-{pool}", "work_pool_name": pool}
    steps = json.dumps(body["pull_steps"]).replace(stack.environment["REFLUX_REPOSITORY"], f"file://{CLONED}")
    return str(stack.prefect("POST", "/deployments/", body | {"pull_steps": json.loads(steps)})["id"])


def ask(stack: LocalStack, deployment: str, seed: int) -> str:
    body = {"parameters": {"overrides": [f"seed={seed}"]}, "state": {"type": "SCHEDULED"}}
    return str(stack.prefect("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])


def joined(container: Container, stack: LocalStack, folder: Path) -> Container:
    """The container with the stack's addresses and logins, its repository, and the code where the image has it."""
    container = with_folder(container, CLONED, stack.home / "repository")
    (folder / "opt").mkdir()
    (folder / "opt/code").symlink_to(INFRA.parent)
    container = with_folder(container, "/opt/reflux", folder / "opt/code")
    client = {key: value for key, value in stack.environment.items() if key.startswith(CLIENT)}
    return replace(container, variables=container.variables | client | {"PREFECT_WORKER_QUERY_SECONDS": "1"})


def check(stack: LocalStack, run: str, log: Path, kept: Path, cache: Path) -> None:
    ended = stack.ended(run)
    assert ended["state_type"] == "COMPLETED", stack.logs(run) + log.read_text() + logs_of(stack.state)
    version = stack.mlflow().get_model_version_by_alias("shapes-student", "champion")
    found = stack.mlflow().search_model_versions(f"name = 'shapes-student' and tags.`prefect.flow_run_id` = '{run}'")
    assert found, "the run registered nothing"
    assert int(version.version) >= 1
    assert {path.name for path in (kept / "shapes").iterdir()} >= {"soft-labels", "outbox", "flow-run"}
    assert any(cache.rglob("*.dir"))


def test_a_worker_in_the_container_of_compose_trains_and_promotes(stack, deployment, tmp_path):
    other = deploy_to(stack, deployment, "cpu")
    container = replace(joined(of_compose("cpu-worker", tmp_path), stack, tmp_path), workdir="/opt/reflux")
    held = stack.part("worker-cpu")
    held.suspend()
    worker = start_in(container, compose_service("cpu-worker")["command"], tmp_path / "log")
    try:
        check(stack, ask(stack, other, 1), tmp_path / "log", tmp_path / "work/cpu/kept", tmp_path / "work/cache")
    finally:
        held.resume()
        os.kill(worker.pid, signal.SIGTERM)
        worker.wait(120)


def test_a_job_in_the_container_of_kubernetes_trains_and_promotes(stack, deployment, tmp_path):
    """What Prefect's worker puts into the Job is done by hand: the run's id, its state and its command."""
    template = json.loads((INFRA / "kubernetes/cpu-job-template.json").read_text(encoding="utf-8"))
    pool = {"name": "kubernetes", "type": "kubernetes", "base_job_template": template}
    stack.prefect("POST", "/work_pools/", pool)
    run = ask(stack, deploy_to(stack, deployment, "kubernetes"), 2)
    stack.prefect("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}})
    container = joined(of_a_job("cpu", tmp_path), stack, tmp_path)
    container = replace(container, variables=container.variables | {"PREFECT__FLOW_RUN_ID": run})
    job = start_in(container, [sys.executable, "-m", "prefect", "flow-run", "execute"], tmp_path / "log")
    try:
        assert job.wait(900) == 0, (tmp_path / "log").read_text()
        claim = tmp_path / "dvc-cache"
        check(stack, run, tmp_path / "log", claim / "cpu/kept", claim / "cache")
    finally:
        job.kill()
        job.wait()
