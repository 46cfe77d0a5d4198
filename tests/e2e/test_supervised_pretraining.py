"""`reflux run` with pretraining on another dataset's labels: it ends in a decision, and another source is noticed."""

import shutil
from pathlib import Path

import pytest

from benchmarks.adaptation import MNIST
from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux
from tests.workspaces import make_tiny_project

pytestmark = pytest.mark.long

SETTINGS = """
    pretrain.mode=supervised pretrain.learns=both pretrain.steps=150 pretrain.batch_size=32
    pretrain.augment.flip=false pretrain.augment.crop_scale=0.8
"""


def test_what_digits_have_taught_learns_shapes(tmp_path: Path, mlflow_template: Path):
    folder = make_tiny_project(tmp_path / "project")
    (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    shutil.copytree(MNIST, folder / "data/mnist")
    chosen = [each for assignment in SETTINGS.split() for each in ("-S", assignment)]
    missing = reflux(folder, "run", *chosen)
    assert missing.returncode == 2
    assert "mode = supervised learns the labels of another dataset" in missing.stderr
    nowhere = reflux(folder, "run", *chosen, "-S", "pretrain.source=data/nothing")
    assert nowhere.returncode == 2
    assert "pretrain.source = data/nothing does not exist" in nowhere.stderr

    done = reflux(folder, "run", *chosen, "-S", "pretrain.source=data/mnist")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shapes-student version 1 is" in done.stdout
    assert "pretrain: resnet20 (teacher) recognizes" in done.stdout
    rows = read_json(folder / "artifacts/pretrain/reached.json")
    assert [row["role"] for row in rows] == ["teacher", "student"]
    assert all(row["classes"] == 10 and row["held_out"] > 900 and row["accuracy"] > 0.3 for row in rows)
    assert "The labels of mnist were learned before" in (folder / "artifacts/evaluate/model-card.md").read_text()
    again = reflux(folder, "run")
    assert "No stage's data, params or code has changed" in again.stdout

    (folder / "data/mnist/test.parquet").unlink()
    planned = reflux(folder, "plan")
    assert "another dataset may have another content" in " ".join(planned.stdout.split())
    changed = reflux(folder, "run")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert "pretrain: started" in changed.stdout
    shared = reflux(folder, "run", "-S", "pretrain.source=data/shapes")
    assert shared.returncode == 2
    assert "training and validation images of pretrain.source = data/shapes are in the dataset's val" in shared.stderr
