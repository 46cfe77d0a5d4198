"""A killed stage goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.params.file import override_params
from tests.workspaces import run_stage, training_workspace, write_source

SETTINGS = (
    *("pretrain.source=data/levels", "pretrain.learns=both", "pretrain.steps=60", "pretrain.batch_size=16"),
    *("run.checkpoint_every_s=0.05", "run.deterministic=true"),
)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["self-supervised", "supervised"])
def test_kill_9_costs_no_bit_of_what_is_learned(tmp_path: Path, mode: str):
    """In the teacher's training, and then in the student's."""
    folders = [tmp_path / name for name in ("whole", "killed")]
    write_source(training_workspace(folders[0]))
    override_params([f"pretrain.mode={mode}", *SETTINGS], folders[0] / "params.yaml")
    shutil.copytree(folders[0], folders[1])
    assert run_stage("pretrain", folders[0]).returncode == 0
    for role in ("teacher", "student"):
        process = subprocess.Popen(
            [sys.executable, "-m", "reflux.components.stages.pretrain"],
            cwd=folders[1],
            stdout=subprocess.PIPE,
            env=os.environ | {"REFLUX_EVENTS": "1"},
        )
        events = (json.loads(line.strip(b"\x1e\n ")) for line in process.stdout if line.startswith(b"\x1e"))
        while not list((folders[1] / f".reflux/checkpoints/pretrain-before/{role}").glob("[!.]*.pt")):
            time.sleep(0.01)
        done = next(events)["done"]
        next(event for event in events if event["done"] >= done + 32)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_stage("pretrain", folders[1]).returncode == 0
    for file in ("model.safetensors", "student/model.safetensors", "reached.json"):
        assert len({sha256_file(folder / "artifacts/pretrain" / file) for folder in folders}) == 1
