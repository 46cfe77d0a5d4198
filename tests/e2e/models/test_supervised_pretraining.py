"""`reflux run` with pretraining on another dataset's labels: it ends in a decision, and another source is noticed."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.transfer.few_digits import MNIST
from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux
from tests.e2e.models.other_sources import assert_a_change_is_noticed

pytestmark = pytest.mark.long

SETTINGS = """
    pretrain.mode=supervised pretrain.learns=both pretrain.steps=150 pretrain.batch_size=32
    pretrain.augment.flip=false pretrain.augment.crop_scale=0.8
"""


def test_what_digits_have_taught_learns_shapes(tmp_path: Path, tiny_project):
    folder = tiny_project(tmp_path / "project")
    shutil.copytree(MNIST, folder / "data/mnist")
    for file in (folder / "data/mnist").glob("*.parquet"):
        table = pq.read_table(file)
        parity = ["odd" if int(label) % 2 else "even" for label in table["label"].to_pylist()]
        pq.write_table(table.append_column("parity", pa.array(parity)), file)
    chosen = [each for assignment in SETTINGS.split() for each in ("-S", assignment)]
    missing = reflux(folder, "run", *chosen)
    assert missing.returncode == 2
    assert "mode = supervised learns the labels of another dataset" in missing.stderr
    nowhere = reflux(folder, "run", *chosen, "-S", "pretrain.source=data/nothing")
    assert nowhere.returncode == 2
    assert "pretrain.source = data/nothing does not exist" in nowhere.stderr

    chosen += ["-S", "pretrain.source=data/mnist"]
    unknown = reflux(folder, "run", *chosen, "-S", "pretrain.tasks={color: 1}")
    assert unknown.returncode == 2
    assert "has no column 'color', which pretrain.tasks names" in unknown.stderr

    done = reflux(folder, "run", *chosen, "-S", "pretrain.tasks={parity: 0.5}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shapes-student version 1 is" in done.stdout
    assert "pretrain: resnet20 (teacher) recognizes" in done.stdout
    rows = read_json(folder / "artifacts/pretrain/reached.json")
    assert [(row["role"], row["task"]) for row in rows] == [
        (role, task) for role in ("teacher", "student") for task in (None, "parity")
    ]
    assert all(row["held_out"] > 900 and row["accuracy"] > 3 / row["classes"] for row in rows if not row["task"])
    assert all(row["classes"] == 2 and row["accuracy"] > 0.6 for row in rows if row["task"])
    assert "The labels and parity of mnist were learned" in (folder / "artifacts/evaluate/model-card.md").read_text()
    assert_a_change_is_noticed(folder, "pretrain")
    shared = reflux(folder, "run", "-S", "pretrain.source=data/shapes", "-S", "pretrain.tasks={}")
    assert shared.returncode == 2
    assert "training and validation images of pretrain.source = data/shapes are in the dataset's val" in shared.stderr
