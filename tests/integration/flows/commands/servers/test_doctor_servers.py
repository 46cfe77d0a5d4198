"""``reflux doctor`` with shared servers: real ones with users, a clock that is wrong, stores that can't be written."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from reflux.flows.commands.servers import doctor_servers
from reflux.flows.local.prefect_server import PrefectServer
from tests.servers import mlflow_server
from tests.workspaces import git, make_tiny_project

pytestmark = pytest.mark.long

PASSWORD = "a-long-enough-password"
MLFLOW = {"MLFLOW_TRACKING_USERNAME": "reflux", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
PREFECT = {"PREFECT_API_AUTH_STRING": f"reflux:{PASSWORD}"}


@dataclass(frozen=True)
class Servers:
    """MLflow's address and folder, and Prefect's address; both ask for a login."""

    mlflow: str
    prefect: str
    folder: Path


@pytest.fixture(scope="module")
def servers(tmp_path_factory, prefect_home) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    users = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
    (folder / "auth.ini").write_text(users)
    secrets = {
        "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
        "MLFLOW_AUTH_ADMIN_USERNAME": MLFLOW["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "flask",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", PREFECT["PREFECT_API_AUTH_STRING"])
        prefect = PrefectServer(prefect_home(folder / "prefect"))
    try:
        arguments = ("--app-name", "basic-auth")
        with mlflow_server(folder, f"sqlite:///{folder}/runs.db", arguments=arguments, **secrets) as mlflow:
            prefect.wait()
            yield Servers(mlflow.uri, prefect.api, folder)
    finally:
        prefect.stop()


@pytest.fixture
def project(tmp_path) -> Path:
    """With git, and a DVC remote in a folder."""
    folder = make_tiny_project(tmp_path / "project")
    remote = f"[core]\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path}/remote\n"
    (folder / ".dvc/config.local").write_text(remote)
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def doctor(project: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
    command = [sys.executable, "-m", "reflux.flows.cli", "doctor"]
    environment = kept | variables
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def line(report: str, what: str) -> str:
    return next(line for line in report.splitlines() if f" {what}  " in line)


def test_servers_that_are_well(project, servers):
    report = doctor(project, MLFLOW_TRACKING_URI=servers.mlflow, PREFECT_API_URL=servers.prefect, **MLFLOW, **PREFECT)
    assert report.returncode == 0, report.stdout + report.stderr
    assert f"{servers.mlflow}, version {version('mlflow')}" in line(report.stdout, "MLflow")
    assert f"{servers.prefect}, version {version('prefect')}" in line(report.stdout, "Prefect")
    assert "written and read back (mlflow-artifacts)" in line(report.stdout, "MLflow, artifacts")
    assert "as here" in line(report.stdout, "MLflow, clock")
    assert "as here" in line(report.stdout, "Prefect, clock")
    assert line(report.stdout, "DVC remote").startswith("ok")
    assert "/remote,written" in "".join(report.stdout.split())  # a long path is broken anywhere
    assert "GB free" in line(report.stdout, "DVC cache")
    assert list((project.parent / "remote").iterdir()) == []  # nothing is left behind
    assert PASSWORD not in report.stdout + report.stderr


def test_a_missing_and_a_wrong_login_are_told_apart(project, servers):
    wrong = {"MLFLOW_TRACKING_USERNAME": "reflux", "MLFLOW_TRACKING_PASSWORD": "wrong"}
    report = doctor(project, MLFLOW_TRACKING_URI=servers.mlflow, PREFECT_API_URL=servers.prefect, **wrong)
    assert report.returncode == 2
    assert "your login is refused: correct" in line(report.stdout, "MLflow")
    assert "your login is missing: set" in line(report.stdout, "Prefect")
    assert "MLFLOW_TRACKING_PASSWORD" in report.stdout
    assert "PREFECT_API_AUTH_STRING" in report.stdout


def test_an_artifact_store_that_cannot_be_written_is_told(servers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key, value in MLFLOW.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.mlflow)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store, away = servers.folder / "store", servers.folder / "away"
    store.mkdir(exist_ok=True)
    store.rename(away)
    store.write_text("a file where the store's folder should be")
    try:
        findings = {finding.what: finding for finding in doctor_servers.mlflow(servers.mlflow, "shapes")}
    finally:
        store.unlink()
        away.rename(store)
    assert "--artifacts-destination" in findings["MLflow, artifacts"].fix
    assert not findings["MLflow"].fix


def test_a_remote_that_cannot_be_written_is_told(project, monkeypatch):
    (project.parent / "remote").write_text("a file where the remote's folder should be")
    monkeypatch.chdir(project)
    findings = {finding.what: finding for finding in doctor_servers.dvc()}
    assert f"check the URL and the keys of {project.parent}/remote" in findings["DVC remote"].fix


@contextmanager
def clock(offset_s: float) -> Iterator[str]:
    """A server whose clock is ``offset_s`` ahead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404 if "version" in self.path else 200)
            self.send_header("Date", formatdate(time.time() + offset_s, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("offset_s", [-3600, 3600])
def test_a_clock_that_is_an_hour_off_is_told(offset_s):
    with clock(offset_s) as address:
        _, findings = doctor_servers.check("MLflow", address, f"{address}/version", f"{address}/health")
    assert [finding.what for finding in findings] == ["MLflow, clock"]
    assert re.fullmatch(r"3(600|599) s off this machine's", findings[0].observed)
    assert "NTP" in findings[0].fix


def test_a_server_that_lets_everybody_in_is_told_unless_only_this_machine_reaches_it():
    with clock(0) as address:
        _, alone = doctor_servers.check("Prefect", address, f"{address}/health", f"{address}/health")
        assert [finding.what for finding in alone if finding.fix] == []
        _, findings = doctor_servers.check("Prefect", "http://prefect.example.org", f"{address}/x", f"{address}/x")
    assert "PREFECT_SERVER_API_AUTH_STRING" in findings[-1].fix
