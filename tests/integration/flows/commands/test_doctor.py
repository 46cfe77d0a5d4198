"""``reflux doctor`` as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspaces import git

pytestmark = pytest.mark.long


def doctor(folder: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))} | changes
    command = [sys.executable, "-m", "reflux.flows.cli", "doctor"]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def test_the_doctor_finds_a_healthy_project_and_a_sick_one(tmp_path, tiny_project):
    project = tiny_project(tmp_path / "copy")
    git(project, "init", "-q")
    git(project, "commit", "-q", "--allow-empty", "-m", "one")
    healthy = doctor(project)
    assert healthy.returncode == 0, healthy.stdout
    assert "look" not in healthy.stdout
    for what in ("Python", "torch", "CPU", "GPU", "dataset", "gates", "git", "MLflow", "Prefect", "undelivered runs"):
        assert what in healthy.stdout
    sick = doctor(project, MLFLOW_TRACKING_URI="http://127.0.0.1:9", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert sick.returncode == 2
    assert sick.stdout.count("look") == 2
