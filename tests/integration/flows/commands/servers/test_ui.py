"""``reflux ui`` as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reflux.flows.local.prefect_server import free_port
from tests.trees import is_alive

pytestmark = pytest.mark.slow

REFLUX = [sys.executable, "-m", "reflux.flows.cli"]


@pytest.fixture(autouse=True)
def _hears_ctrl_c() -> Iterator[None]:
    """A test run in the background ignores SIGINT, and would hand that down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def project(tmp_path, tiny_project) -> Path:
    folder = tiny_project(tmp_path / "copy")
    return folder


def environment(**changes: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))} | changes


def call(folder: Path, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*REFLUX, *arguments], cwd=folder, env=environment(**changes), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("prefect", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_ui_answers_and_stops_cleanly(project, prefect):
    port = free_port()
    command = [*REFLUX, "ui", "--port", str(port), *["--prefect"] * prefect]
    process = subprocess.Popen(command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f"MLflow is at http://127.0.0.1:{port} (Ctrl-C stops it).\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120) as page:
            assert "MLflow" in page.read().decode()
        if prefect:
            assert process.stdout.readline() == f"Prefect is at http://127.0.0.1:{port + 1} (Ctrl-C stops it).\n"
            with urllib.request.urlopen(f"http://127.0.0.1:{port + 1}/", timeout=120) as page:
                assert "Prefect" in page.read().decode()
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
        assert not any(map(is_alive, below))
    finally:
        process.kill()


def test_a_port_in_use_and_a_remote_server(project):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = call(project, "ui", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert "is in use" in refused.stderr
    remote = call(project, "ui", MLFLOW_TRACKING_URI="https://mlflow.example.com")
    assert remote.returncode == 2
    assert "does not answer" in remote.stderr
    assert "https://mlflow.example.com" in remote.stdout
