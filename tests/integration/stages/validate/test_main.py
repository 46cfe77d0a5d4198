"""Validation as a process: offline, and as the gate before training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.core.params.file import override_params
from tests.datasets import (
    bad_files,
    copy_into_splits,
    environment,
    journal,
    project,
    run_ingest,
    stage,
)

pytestmark = pytest.mark.slow


def test_it_runs_offline_and_reports_its_findings(tmp_path: Path) -> None:
    folder = project(tmp_path)
    bad_files(folder / "data" / "tiny")
    run_ingest(folder / "data" / "tiny", folder / "artifacts" / "ingest")
    done = stage("validate", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Warning: nothing_quarantined (5 of 69: " in done.stdout
    lines = journal(folder, "validate")
    logged = {k: v for line in lines if line["op"] == "metrics" for k, v in line["values"].items()}
    assert (logged["validate/critical_failures"], logged["validate/warnings"]) == (0, 2)
    assert [Path(line["path"]).name for line in lines if line["op"] == "artifact"] == ["result.json", "docs"]
    assert list((folder / "temporary").iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        ".reflux",
        "artifacts",
        "data",
        "dvc.yaml",
        "guard",
        "params.yaml",
        "temporary",
    ]


@pytest.mark.long
def test_under_dvc_a_critical_failure_stops_before_training_and_leaves_the_report(tmp_path: Path) -> None:
    folder = project(tmp_path)
    copy_into_splits(folder / "data" / "tiny")
    owls, aside = folder / "data" / "tiny" / "val" / "owl", folder / "owl"
    owls.rename(aside)

    def dvc(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dvc", *arguments]
        env = environment(folder) | {"DVC_NO_ANALYTICS": "1"}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)

    assert dvc("init", "--no-scm").returncode == 0
    assert dvc("config", "core.check_update", "false").returncode == 0
    small = ["pretrain.model=resnet8", "pretrain.weights=random", "finetune.epochs=1", "finetune.image_size=16"]
    override_params([*small, "finetune.freeze_batch_norm=false"], folder / "params.yaml")
    done = dvc("repro", "finetune")
    assert done.returncode != 0
    assert (
        "Error: The data fails 1 critical expectation: every_class_in_each_split (1 of 9: owl in val has 0);"
        in done.stderr
    )
    validated = folder / "artifacts" / "validate"
    assert (validated / "docs" / "index.html").exists()
    assert json.loads((validated / "result.json").read_text())["critical_failures"] == 1
    assert not (validated / "passed").exists()
    assert not (folder / "artifacts" / "finetune").exists()

    aside.rename(owls)
    done = dvc("repro", "finetune")
    assert done.returncode == 0, done.stderr
    assert (validated / "passed").exists()
    assert (folder / "artifacts" / "finetune" / "model.safetensors").exists()
    assert "didn't change, skipping" in dvc("repro", "finetune").stdout
