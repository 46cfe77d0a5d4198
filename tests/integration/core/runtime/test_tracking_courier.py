"""The courier against writers that end, or are killed, at the worst moment."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import OUTBOX

WRITER = """
import sys
from reflux.components.core.runtime.journal import Journal
journal = Journal("project", "stage", {})
journal.metrics({"loss": 1.0})
print("ready", flush=True)
sys.stdin.readline()
journal.metrics({"loss": 0.5}, step=1)
journal.end("FINISHED")
"""


@pytest.fixture
def writer(mlflow_home) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=mlflow_home
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def the_run():
    client = MlflowClient()
    return client.search_runs([client.get_experiment_by_name("project").experiment_id])[0]


def test_a_stage_that_ends_while_its_lines_are_sent_is_not_called_killed(writer, monkeypatch):
    send = tracking._send

    def send_while_the_writer_ends(*arguments):
        if writer.poll() is None:
            writer.communicate("go\n")
        send(*arguments)

    monkeypatch.setattr(tracking, "_send", send_while_the_writer_ends)
    assert tracking.deliver() == 0
    assert the_run().info.status == "RUNNING"
    assert tracking.deliver() == 0
    assert the_run().info.status == "FINISHED"
    assert the_run().data.metrics["loss"] == 0.5
    assert not list(Path(OUTBOX).iterdir())


def test_a_stage_that_was_killed_is(writer):
    tracking.deliver()
    writer.kill()
    writer.wait()
    tracking.deliver()
    assert the_run().info.status == "KILLED"
    assert the_run().data.metrics["loss"] == 1.0
