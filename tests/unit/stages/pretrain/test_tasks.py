"""Further label columns of a source: what is read of them, their heads, losses and figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load
from reflux.components.stages.pretrain import __main__ as pretrain
from reflux.components.stages.pretrain.tasks import Task, loss_of, read_tasks
from tests.workspaces import training_workspace, write_source

SOURCE = Path("artifacts/ingest/pretrain-source")
LEARNING = (
    *("pretrain.mode=supervised", "pretrain.source=data/levels", "pretrain.learns=student", "pretrain.steps=2"),
    *("pretrain.batch_size=20", "pretrain.augment={shift: 0.1, flip: false}"),
)


def test_a_column_is_read_in_the_order_of_the_images(tmp_path: Path):
    rows = [("train", 1, "red"), ("train", 0, "blue"), ("train", 2, "none"), ("test", 0, "red"), ("test", 1, "green")]
    table = pd.DataFrame(rows, columns=["split", "row", "slice:color"]).assign(**{"slice:shape": "round"})
    table.to_parquet(tmp_path / "manifest.parquet")
    (task,) = read_tasks(tmp_path / "manifest.parquet", {"color": 0.5})
    assert (task.name, task.weight, task.classes) == ("color", 0.5, ("blue", "red"))
    assert task.labels["train"].tolist() == [0, 1, UNLABELED]
    assert task.labels["test"].tolist() == [1, UNLABELED], "no training image is green"
    with pytest.raises(UserError, match=r"column shape, in which the training images .* have 1 value: a task needs"):
        read_tasks(tmp_path / "manifest.parquet", {"shape": 1})


def test_a_tasks_loss_is_its_weight_times_the_mean_over_images_with_a_value():
    own, other = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
    labels, values = torch.tensor([0, 1, 2, 0]), torch.tensor([2, UNLABELED, 1, UNLABELED])
    parts = loss_of([Task("color (by eye)", 0.5, ("a", "b", "c"), {})])((own, other), labels, values)
    assert parts.keys() == {"ce", "ce-color -by eye-"}
    assert torch.allclose(parts["ce"].mean(), F.cross_entropy(own, labels))
    expected = 0.5 * F.cross_entropy(other[[0, 2]], values[[0, 2]])
    assert torch.allclose(parts["ce-color -by eye-"].mean(), expected)


def test_each_task_has_a_head_and_its_weight_counts(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    write_source(training_workspace(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("artifacts/ingest/shards")
    Path("artifacts/pretrain").mkdir()
    labels = {split: np.load(SOURCE / f"shards/{split}/labels.npy") for split in ("train", "val", "test")}
    rows = [
        (split, row, "none" if row == 0 else "no" if label else "yes")
        for split, own in labels.items()
        for row, label in enumerate(own)
    ]
    pd.DataFrame(rows, columns=["split", "row", "slice:dim"]).to_parquet(SOURCE / "manifest.parquet")
    learned = []
    for weight in (1, 3):
        pretrain.main(Stage("pretrain", override_params([*LEARNING, f"pretrain.tasks={{dim: {weight}}}"])))
        learned.append(sha256_file(Path("artifacts/pretrain/student/model.safetensors")))
    assert learned[0] != learned[1]
    model = load(Path("artifacts/pretrain/student/model.safetensors"))
    assert model.spec.classes == ("dark", "middling", "bright"), "the further heads are dropped"
    reached = json.loads(Path("artifacts/pretrain/reached.json").read_text())
    found = [(row["task"], row["images"], row["held_out"], row["classes"]) for row in reached]
    assert found == [(None, 60, 30, 3), ("dim", 59, 29, 2)]
    accuracy = reached[1]["accuracy"]
    assert f"(student) recognizes the dim of {100 * accuracy:.2f} % of 29 held-out" in capsys.readouterr().out
    lines = [line for file in Path(".reflux/outbox").glob("*/journal.jsonl") for line in file.read_text().splitlines()]
    assert [line for line in lines if f'"source/student_dim_accuracy": {accuracy}' in line]
    assert [line for line in lines if '"train/ce-dim"' in line]
