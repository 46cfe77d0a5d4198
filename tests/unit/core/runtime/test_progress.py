import subprocess
import sys

import pytest

from tests.workspaces import make_tiny_project

STAGE = """
import time
from reflux.components.core.runtime import progress
from reflux.components.core.runtime.stage import run

def body(stage):
    with progress.bar("finetune", "teacher", 10) as bar:
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)
            bar.advance(1, val_accuracy=0.5)

run("finetune", body)
"""


@pytest.mark.slow
def test_a_stage_whose_reader_was_killed_is_killed_and_did_not_fail(mlflow_home, monkeypatch):
    """The flow that reads a stage's progress is gone, and the stage does not know it yet."""
    from mlflow import MlflowClient

    folder = make_tiny_project(mlflow_home / "project")
    monkeypatch.setenv("REFLUX_EVENTS", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while b"ready" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read().decode()
    process.stdout.close()
    process.wait(timeout=120)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("shapes")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["KILLED"]
