"""Stages tell a real HTTP server, as an OpenLineage consumer is one, that they started and how they ended."""

import hashlib
import json
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import openlineage, tracking
from reflux.components.core.runtime import stage as module
from reflux.components.core.runtime.journal import PARENT_VARIABLE
from reflux.components.core.runtime.stage import Stage
from tests.receiver import Receiver
from tests.workspaces import ROOT

PARENT = uuid.uuid4().hex
READ, WROTE = "artifacts/ingest/images.json", "artifacts/control/model.safetensors"


@pytest.fixture
def consumer() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def run(tmp_path, monkeypatch) -> Iterator[Callable[[Callable[[Stage], None]], int]]:
    """Run a body as the stage control in this process, without MLflow; returns the exit code."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "deliver", lambda: None)
    monkeypatch.setenv(PARENT_VARIABLE, PARENT)
    Path(READ).parent.mkdir(parents=True)
    Path(READ).write_text("{}")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGXFSZ)}
    yield lambda body: module._run("control", body)
    for number, handler in before.items():
        signal.signal(number, handler)


def train(stage: Stage) -> None:
    stage.read("ingest/images.json")
    stage.out("model.safetensors").write_bytes(b"weights")


def events(consumer: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in consumer.got]


def test_a_stage_sends_that_it_started_and_that_it_is_complete_with_what_it_read_and_made(run, consumer, monkeypatch):
    pytest.importorskip("openlineage")
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{consumer.port}")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
    assert run(train) == 0

    start, complete = events(consumer)
    assert consumer.got[0][0]["authorization"] == "Bearer a-key"
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert datetime.fromisoformat(start["eventTime"]) <= datetime.fromisoformat(complete["eventTime"])
    made = json.loads(Path("artifacts/control/run.json").read_text())
    for event in (start, complete):
        assert event["run"]["runId"] == str(uuid.UUID(made["journal"]))
        assert (event["job"]["namespace"], event["job"]["name"]) == ("fashion-mnist", "control")
        assert event["run"]["facets"]["parent"]["run"]["runId"] == str(uuid.UUID(PARENT))
        assert event["schemaURL"].startswith("https://openlineage.io/spec/")
    (read,) = complete["inputs"]
    assert (read["namespace"], read["name"]) == ("reflux://fashion-mnist", READ)
    assert read["facets"]["version"]["datasetVersion"] == hashlib.sha256(b"{}").hexdigest()
    outputs = {each["name"]: each["facets"] for each in complete["outputs"]}
    assert outputs[WROTE]["version"]["datasetVersion"] == hashlib.sha256(b"weights").hexdigest()
    assert outputs[WROTE]["datasetType"]["datasetType"] == "MODEL"
    tags = {each["key"]: each["value"] for each in outputs[WROTE]["tags"]["tags"]}
    assert tags == {"role": "control", "network": "resnet8_slim"}
    assert outputs["artifacts/control/run.json"]["datasetType"]["datasetType"] == "FILE"


def test_a_failed_stage_says_why_and_a_stopped_one_that_it_was_stopped(run, consumer, monkeypatch, capsys):
    pytest.importorskip("openlineage")
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{consumer.port}")

    def refuse(_: Stage) -> None:
        raise UserError("its batch can't be shared.")

    def stop(_: Stage) -> None:
        raise KeyboardInterrupt

    assert (run(refuse), run(stop)) == (2, 130)
    with pytest.raises(ZeroDivisionError):
        run(lambda _: 1 / 0)
    kinds = [(event["eventType"], "errorMessage" in event["run"]["facets"]) for event in events(consumer)]
    start = ("START", False)
    assert kinds == [start, ("FAIL", True), start, ("ABORT", False), start, ("FAIL", True)]
    messages = [events(consumer)[at]["run"]["facets"]["errorMessage"]["message"] for at in (1, 5)]
    assert messages == ["its batch can't be shared.", "division by zero"]


def test_a_consumer_that_is_away_or_a_client_that_is_not_installed_fails_no_stage(run, monkeypatch, capsys):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    with monkeypatch.context() as patch:
        patch.setattr(openlineage, "find_spec", lambda _: None)
        assert run(train) == 0
    assert capsys.readouterr().err.count("Warning: OPENLINEAGE_URL is set, but no event is sent. OpenLineage's") == 2
    pytest.importorskip("openlineage")
    assert run(train) == 0
    assert "Warning: OPENLINEAGE_URL did not take the event COMPLETE of control (" in capsys.readouterr().err


def test_without_an_address_nothing_is_imported(run, monkeypatch):
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "openlineage"]:
        monkeypatch.delitem(sys.modules, name)
    assert run(train) == 0
    assert not [name for name in sys.modules if name.partition(".")[0] == "openlineage"]
