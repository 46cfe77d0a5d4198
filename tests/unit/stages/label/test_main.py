"""The stage decides how many views there are, and says what they cost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import pixel_model, save
from reflux.components.stages.label import __main__ as label
from reflux.components.stages.label.store import share_of_disk
from tests.workspaces import training_workspace, watched


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Labels 80 images with some settings, of which a student visits 16 at each step; returns the manifest."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    teacher = pixel_model("resnet8_slim", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    save(teacher, Path("artifacts/finetune/model.safetensors"))
    Path("artifacts/label").mkdir()

    def run(*settings: str) -> dict:
        label.main(Stage("label", override_params(["student.batch_size=16", *settings])))
        return json.loads(Path("artifacts/label/manifest.json").read_text())

    return run


def test_auto_labels_only_the_views_that_a_longer_training_adds(labeled, monkeypatch: pytest.MonkeyPatch, capsys):
    calls = watched(monkeypatch, label, "fill")
    assert labeled("label.views=auto", "student.steps=11")["views"] == 3
    assert "label.views = auto: 3 of each image" in capsys.readouterr().out
    assert labeled("student.steps=25")["views"] == 5
    assert [(call["result"].computed, call["result"].reused) for call in calls] == [(240, 0), (160, 240)]
    assert labeled("label.views=2")["views"] == 2
    assert "auto" not in capsys.readouterr().out.split("reused")[-2]


def test_a_live_teacher_is_asked_about_as_many_views(labeled):
    manifest = labeled("label.views=auto", "student.steps=25", "distill.teacher=live")
    assert manifest == {"views": 5, "images": 80, "shards": []}


@pytest.mark.parametrize("free", [79 * 2 * 3 * 2, 80 * 2 * 3 * 2 * 3])
def test_a_store_that_takes_much_of_the_disk_is_said(labeled, monkeypatch: pytest.MonkeyPatch, capsys, free: int):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    labeled("label.views=3")
    said = "3 views of 80 images take 101 % of the free disk: lower label.views" in capsys.readouterr().out
    assert said == (free < 80 * 2 * 3 * 2)


def test_space_that_an_earlier_store_takes_is_free_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=60))
    assert share_of_disk(30, tmp_path / "kept") == 0.5
    (tmp_path / "kept/000000.npy").write_bytes(bytes(40))
    assert share_of_disk(30, tmp_path / "kept") == 0.3
