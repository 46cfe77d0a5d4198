"""The stage with pretraining on images without labels, on a tiny dataset; what is slow is elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reflux.components.core import student
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load
from reflux.components.stages.control import __main__ as control
from reflux.components.stages.pretrain import __main__ as pretrain
from reflux.components.stages.pretrain import possible, training
from tests.workspaces import ids, training_workspace, watched

LEARNING = ("pretrain.mode=self-supervised", "pretrain.steps=3", "pretrain.batch_size=16", "student.steps=1")


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the stage; returns the arguments of the function that trained each network."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("artifacts/ingest/shards/test")

    def run(*settings: str) -> list[dict[str, Any]]:
        Path("artifacts/pretrain").mkdir(exist_ok=True)
        calls = watched(monkeypatch, training, "fit")
        pretrain.main(Stage("pretrain", override_params([*LEARNING, *settings])))
        return calls

    return run


def test_both_networks_learn_from_all_images_at_their_own_sizes_and_leave_no_checkpoint(learned):
    teacher, own = learned("pretrain.learns=both", "pretrain.lr=0.3")
    for call, name, size in ((teacher, "resnet8", 16), (own, "resnet8_slim", 12)):
        assert (call["model"].model.spec.name, call["model"].model.spec.image_size) == (name, size)
        assert call["setup"].recipe.lr == 0.3
        assert {*call["train"].ids} == {*ids("train")}
        assert {*call["val"].ids} == {*ids("val")}
        assert {"train_simsiam", "train_ce", "val_accuracy"} <= call["result"][-1].keys()
    files = [load(Path("artifacts/pretrain", place, "model.safetensors")) for place in (".", "student")]
    assert [file.spec.name for file in files] == ["resnet8", "resnet8_slim"]
    origins = [json.loads(Path("artifacts/pretrain", place, "model.json").read_text()) for place in (".", "student")]
    assert [(origin["mode"], origin["images"]) for origin in origins] == [("self-supervised", 80)] * 2
    assert not list(Path(".reflux/checkpoints").rglob("*.*"))


def test_the_control_starts_from_what_the_student_has_learned(learned, monkeypatch: pytest.MonkeyPatch):
    learned("pretrain.learns=student")
    assert "mode" not in json.loads(Path("artifacts/pretrain/model.json").read_text())
    starts = []

    def first(model, *arguments: Any, **more: Any) -> list[dict[str, float]]:
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        return fit(model, *arguments, **more)

    fit = student.fit
    monkeypatch.setattr(student, "fit", first)
    Path("artifacts/control").mkdir()
    control.main(Stage("control", override_params(["student.eval_every=1"])))
    learned_weights = load(Path("artifacts/pretrain/student/model.safetensors")).state_dict()
    backbone = [name for name in learned_weights if "head" not in name]
    assert all(torch.equal(starts[0][name], learned_weights[name]) for name in backbone)


def test_without_unlabeled_images_or_without_lightly_it_is_one_sentence(learned, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(possible, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs the package lightly: `pip install lightly`"):
            learned()
    for name in ("images", "labels", "ids"):
        file = Path(f"artifacts/ingest/shards/unlabeled/{name}.npy")
        np.save(file, np.load(file)[:0])
    with pytest.raises(UserError, match=r"learns from unlabeled images, and the dataset has none: add some"):
        learned()
