from pathlib import Path

import pytest
from prefect.states import Failed

from reflux.components.core.artifacts import write_json
from reflux.components.registry.client import Unreachable
from reflux.flows.outcome import StageFailed
from reflux.flows.pipeline.tasks import is_transient, unlike


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (StageFailed("distill", "killed", transient=True), True),
        (StageFailed("push", "the remote is away", user_error=True, transient=True), True),
        (StageFailed("distill", "a bug"), False),
        (Unreachable("MLflow does not answer"), True),
        (ValueError("a bug"), False),
    ],
)
def test_a_task_is_tried_again_only_where_that_may_help(failure, again):
    assert is_transient(None, None, Failed(data=failure)) is again


def test_a_student_that_was_computed_otherwise_than_its_control_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    packages = {"torch": "2.13.0+cpu", "torchvision": "0.28.0", "timm": "1.0"}
    for stage in ("finetune", "distill", "control"):
        environment = {"device": "cpu", "compile": False, "training": "fp32", **packages}
        write_json(Path("artifacts") / stage / "run.json", {"environment": environment})
    assert unlike() is None
    write_json(Path("artifacts/distill/run.json"), {"environment": environment | {"device": "cuda", "compile": True}})
    versions = "torch 2.13.0+cpu torchvision 0.28.0 timm 1.0"
    assert unlike() == (
        "Not all was computed alike, which moves the last digits: "
        f"finetune and control on cpu with {versions}; distill on cuda with {versions}, compiled."
    )
