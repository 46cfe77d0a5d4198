"""Runs in the containers of Compose and Kubernetes: what they may write, and what outlives them."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from reflux.flows.local.prefect_server import free_port
from tests.containers import run_in, start_in, why_not
from tests.manifests import INFRA, compose_service, of_a_job, of_a_server, of_compose, with_folder
from tests.servers import has_postgres
from tests.workspaces import git, make_tiny_project, until

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]

BIN = Path(sys.executable).parent
REPOSITORY = "/srv/repository"
INGEST = """
import logging, os, subprocess, sys, tempfile
from pathlib import Path
from infra.local.worker import prepare
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.journal import COURIER_VARIABLE, OUTBOX
from reflux.flows.local.environment import keep_home
from reflux.flows.repo.checkout import dvc, prepare_dvc
from reflux.flows.repo.stages import Runner
from reflux.flows.report.display import Display

if sys.argv[1:]:
    os.environ.update(prepare(sys.argv[1], Path(sys.argv[3])))
    tempfile.tempdir = None
os.chdir(tempfile.mkdtemp())
subprocess.run(["git", "clone", "--quiet", "/srv/repository", "clone"], check=True)
os.chdir("clone")
keep_home("shapes", "a run")
prepare_dvc()
installed.record(load_params(), ["ingest"])
before = len(list(OUTBOX.glob("*/journal.jsonl")))
away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", COURIER_VARIABLE: "1"}
with Runner(Display(lambda _: None, logging.getLogger()), away) as runner:
    outcome = runner.run("ingest").name
status, lines = dvc("status", "ingest")
assert status == 0, lines
print(os.getuid(), outcome, before)
for forbidden in (sys.prefix, "/var/tmp", "/etc", "/srv/repository"):
    try:
        Path(forbidden, "written").touch()
    except OSError:
        continue
    raise AssertionError(forbidden)
"""


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    made = make_tiny_project(tmp_path_factory.mktemp("repository") / "shapes")
    git(made, "init", "-q", "-b", "main")
    git(made, "add", ".")
    git(made, "commit", "-qm", "one")
    return made


@pytest.mark.parametrize("way", ["compose", "kubernetes"])
def test_a_run_works_in_its_container_and_what_waits_for_mlflow_outlives_it(repository, tmp_path, way):
    if way == "compose":
        worker = compose_service("cpu-worker")["command"]
        assert worker[0] == "infra/local/worker"
        container, arguments = of_compose("cpu-worker", tmp_path), worker[1:]
    else:
        container, arguments = of_a_job("cpu", tmp_path), []
    container = with_folder(container, REPOSITORY, repository)  # elsewhere it comes over the network
    for outcome, waiting in (("RAN", 0), ("CACHED", 1)):
        done = run_in(container, [sys.executable, "-c", INGEST, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.split() == ["10001", outcome, str(waiting)], done.stderr


@pytest.mark.parametrize("make", [of_compose, of_a_server])
def test_s3_answers_from_its_container(tmp_path, make):
    (tmp_path / "code").symlink_to(INFRA.parent)
    container = with_folder(make("s3", tmp_path), "/opt/reflux", tmp_path / "code")
    port = next(low for _ in range(1000) if (low := free_port()) < 50_000)  # it adds 10,000
    names = [f"{owner}_{part}" for owner in ("AWS", "MLFLOW_S3") for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    keys = {name: name.lower() for name in names}
    chosen = {"REFLUX_S3_PORT": str(port), "REFLUX_HOST": "127.0.0.1", "PATH": f"{BIN}:{os.environ['PATH']}"} | keys
    container = replace(container, variables=container.variables | chosen, workdir="/opt/reflux")
    server = start_in(container, ["infra/servers/s3"], tmp_path / "log")
    try:
        until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/healthz"), 60)
        assert server.poll() is None, (tmp_path / "log").read_text()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(60)


@pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql")
@pytest.mark.parametrize("make", [of_compose, of_a_server])
def test_postgres_works_in_its_container(tmp_path, make):
    """By its programs alone: the script of its image, which calls them, is not here."""
    container = with_folder(make("postgres", tmp_path), "/srv/nothing", tmp_path)
    port, data = free_port(), container.variables.get("PGDATA", "/var/lib/postgresql/data")
    server = f"-k /var/run/postgresql -h 127.0.0.1 -p {port}"
    steps = (
        f"initdb -D {data} -U postgres --no-sync >/tmp/initdb",
        f"pg_ctl -D {data} -w -l /tmp/log -o '{server}' start >/dev/null",
        f"psql -h /var/run/postgresql -p {port} -U postgres -Atc 'SELECT current_user'",
        f"pg_ctl -D {data} -w -m fast stop >/dev/null",
    )
    done = run_in(container, ["sh", "-c", " && ".join(steps) + " || cat /tmp/log /tmp/initdb >&2"])
    assert done.stdout == "postgres\n", done.stderr
