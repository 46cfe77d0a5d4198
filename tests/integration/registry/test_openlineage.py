"""The OpenLineage events of a version, from what it carries of its stages' runs."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.errors import UserError
from reflux.components.registry import openlineage
from reflux.components.registry.register import register
from reflux.flows.commands import lineage as command
from tests.integration.registry.faults import registered_file, retag

pytest.importorskip("openlineage")

BEGAN = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
PIPELINE = uuid.uuid4().hex


@pytest.fixture
def artifacts(home) -> Iterator[Path]:
    """An evaluation with the runs of three stages, each of which reads what the one before made."""
    artifacts = home.evaluation(right=180)
    file = sha256_file(artifacts / "compress" / "student.onnx")
    reads = {
        "distill": {"artifacts/ingest/images.json": "1" * 64},
        "compress": {"artifacts/distill/model.safetensors": "2" * 64},
        "evaluate": {"artifacts/compress/student.onnx": file, "artifacts/ingest/shards/test": "3" * 64},
    }
    for number, (stage, inputs) in enumerate(reads.items()):
        run = {"journal": uuid.uuid4().hex, "inputs": inputs, "wall_s": 5.0}
        run |= {"began": BEGAN + 10 * number, "pipeline": PIPELINE, "mlflow_run_id": None}
        write_json(artifacts / stage / "run.json", run)
    yield artifacts
    for stage in reads:
        (artifacts / stage / "run.json").unlink()


def named(datasets: list[dict[str, Any]]) -> dict[str, str]:
    return {each["name"]: each["facets"]["version"]["datasetVersion"] for each in datasets}


def test_the_events_of_a_version_are_those_of_its_stages_and_of_its_registration(home, model_name, artifacts, capsys):
    made = register(artifacts, model_name, home.experiment, home.lineage())
    names = SimpleNamespace(project=SimpleNamespace(name="shop"), registry=SimpleNamespace(model_name=model_name))
    with mock.patch.object(command, "registry_params", lambda: names):
        assert command.lineage(str(made.version), as_json=False, as_events=True) == 0
        with pytest.raises(UserError, match="abcdef1 is no version's number, and only a version has events"):
            command.lineage("abcdef1", as_json=False, as_events=True)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["job"]["name"], event["eventType"]) for event in events] == [
        (stage, kind) for stage in ("distill", "compress", "evaluate", "register") for kind in ("START", "COMPLETE")
    ]
    assert {event["job"]["namespace"] for event in events} == {"shop"}
    assert events[1]["eventTime"] == "2026-01-02T00:00:05+00:00"
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"] != events[2]["run"]["runId"]
    assert {event["run"]["facets"]["parent"]["run"]["runId"] for event in events} == {str(uuid.UUID(PIPELINE))}

    complete = {event["job"]["name"]: event for event in events[1::2]}
    student = "artifacts/distill/model.safetensors"
    assert named(complete["distill"]["outputs"]) == named(complete["compress"]["inputs"]) == {student: "2" * 64}
    tags = complete["distill"]["outputs"][0]["facets"]["tags"]["tags"]
    assert {each["key"]: each["value"] for each in tags} == {"role": "student", "network": "resnet8"}
    file = {"artifacts/compress/student.onnx": sha256_file(artifacts / "compress" / "student.onnx")}
    assert named(complete["compress"]["outputs"]) == named(complete["register"]["inputs"]) == file
    (version,) = complete["register"]["outputs"]
    assert version["name"] == f"models:/{model_name}/{made.version}"
    facts = {each["key"]: each["value"] for each in version["facets"]["tags"]["tags"]}
    assert (facts["network"], facts["accuracy"], facts["gate.status"]) == ("resnet8", "0.9", "UNKNOWN")


def test_a_version_of_an_older_release_has_no_events(home, model_name, registered):
    version = registered(right=180)
    registered_file(model_name, version, "evaluation/stages.json").unlink()
    retag(model_name, version)
    with pytest.raises(UserError, match="version 1 was registered by a release that did not keep the runs"):
        openlineage.events("shop", model_name, version)
