"""The stage hands the student's params to what trains, and each split to what it is for."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from reflux.components.core import student
from reflux.components.core.data.shards import read_dataset
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load
from reflux.components.stages.control import __main__ as control
from tests.workspaces import ids, pictures, training_workspace, watched


@pytest.fixture
def controlled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains a control for some steps; returns the arguments of the function that trained it, and its history."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("artifacts/control").mkdir()

    def train(*settings: str) -> dict[str, Any]:
        calls = watched(monkeypatch, student, "fit")
        control.main(Stage("control", override_params([f"student.{setting}" for setting in settings])))
        (call,) = calls
        return call

    return train


def test_the_control_learns_from_training_images_and_is_chosen_on_validation_images(controlled):
    call = controlled("steps=2", "augment={shift: 0}")
    assert np.array_equal(call["train"].ids, ids("train"))
    assert np.array_equal(call["val"].ids, ids("val"))
    batch, labels = next(call["batches"](0)), pictures("train")
    assert [labels[image.numpy().tobytes()] for image in batch.pixels] == batch.targets[0].tolist()


def test_without_labels_it_is_the_student_before_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("artifacts/control").mkdir()
    for name in ("images", "labels", "ids"):
        file = Path(f"artifacts/ingest/shards/train/{name}.npy")
        np.save(file, np.load(file)[:0])
    params = override_params([])
    control.main(Stage("control", params))
    dataset = read_dataset(Path("artifacts/ingest/images.json"))
    begun = student.new_student(params.student.model, None, 12, dataset, params.seed, torch.device("cpu")).net
    left = load(Path("artifacts/control/model.safetensors")).net.state_dict()
    assert all(torch.equal(value, left[name]) for name, value in begun.state_dict().items())
    assert pq.read_table("artifacts/control/history.parquet").num_rows == 0
    assert "no training image has a label: the control stays untrained" in capsys.readouterr().out


def test_the_control_balances_its_classes_by_its_params(controlled):
    labels = np.load("artifacts/ingest/shards/train/labels.npy")
    counts = np.bincount(labels)
    assert counts[0] != counts[1]
    call = controlled("steps=2", "balance=logit-adjustment")
    logits, label = torch.tensor([[0.3, 0.1]]), torch.tensor([1])
    adjusted = logits + torch.from_numpy(np.log(counts / counts.sum())).float()
    assert torch.allclose(
        call["objective"].loss(logits, label)["ce"], torch.nn.functional.cross_entropy(adjusted, label)
    )


def test_the_control_samples_its_classes_equally(controlled):
    call = controlled("steps=1", "batch_size=40", "balance=sampling")
    assert next(call["batches"](0)).targets[0].bincount().tolist() == [20, 20]


def test_the_control_is_trained_by_the_students_params(controlled):
    call = controlled("optimizer=sgd", "lr=0.02", "weight_decay=0.07", "clip_norm=0.01", "augment={erase: 1}")
    assert isinstance(call["optimizer"], torch.optim.SGD)
    assert {group["initial_lr"] for group in call["optimizer"].param_groups} == {0.02}
    assert {group["weight_decay"] for group in call["optimizer"].param_groups} == {0.0, 0.07}
    assert all(row["grad_norm"] <= 0.0101 for row in call["result"])
    assert not {image.numpy().tobytes() for image in next(call["batches"](0)).pixels} & set(pictures("train"))
