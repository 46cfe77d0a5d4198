"""The stage with pretraining on the labels of another dataset, on a tiny one; a killed run is elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reflux.components.core.data.shards import Shard, read_dataset
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides, override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.core.student import new_student
from reflux.components.modalities.image.models.pixel_model import load, pixel_model
from reflux.components.stages.pretrain import __main__ as pretrain
from reflux.components.stages.pretrain import training
from reflux.components.stages.pretrain.lessons import reached
from tests.workspaces import ROOT, training_workspace, watched, write_source

SOURCE = Path("artifacts/ingest/pretrain-source")
LEARNING = (
    *("pretrain.mode=supervised", "pretrain.source=data/levels", "pretrain.learns=both", "pretrain.steps=4"),
    *("pretrain.batch_size=20", "pretrain.augment={shift: 0.1, flip: false}"),
)


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the stage without the dataset's own images; returns the arguments of what trained each network."""
    write_source(training_workspace(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("artifacts/ingest/shards")
    Path("artifacts/pretrain").mkdir()
    calls = watched(monkeypatch, training, "fit")

    def run(*settings: str) -> list[dict[str, Any]]:
        pretrain.main(Stage("pretrain", override_params([*LEARNING, *settings])))
        return calls

    return run


def test_both_networks_learn_the_sources_labels_at_their_own_sizes(learned, capsys: pytest.CaptureFixture[str]):
    teacher, own = learned("pretrain.lr=0.1")
    for call, name, size in ((teacher, "resnet8", 16), (own, "resnet8_slim", 12)):
        assert (call["model"].spec.name, call["model"].spec.image_size) == (name, size)
        assert call["model"].spec.classes == ("dark", "middling", "bright")
        assert {*call["train"].ids} == {*np.load(SOURCE / "shards/train/ids.npy")}
        assert {*call["val"].ids} == {*np.load(SOURCE / "shards/val/ids.npy")}
        assert {key for key in call["result"][-1] if key.startswith("train_")} >= {"train_ce", "train_accuracy"}
        assert call["result"][-1]["train_ce"] < call["result"][0]["train_ce"]
    files = [load(Path("artifacts/pretrain", place, "model.safetensors")) for place in (".", "student")]
    assert [file.spec.name for file in files] == ["resnet8", "resnet8_slim"]
    rows = json.loads(Path("artifacts/pretrain/reached.json").read_text())
    assert [(row["role"], row["images"], row["held_out"], row["classes"]) for row in rows] == [
        ("teacher", 60, 30, 3),
        ("student", 60, 30, 3),
    ]
    assert (
        f"resnet8 (teacher) recognizes {100 * rows[0]['accuracy']:.2f} % of 30 held-out images"
        in capsys.readouterr().out
    )
    origins = [json.loads(Path("artifacts/pretrain", place, "model.json").read_text()) for place in (".", "student")]
    assert [(origin["mode"], origin["images"], origin["source"]) for origin in origins] == [
        ("supervised", 60, "data/levels")
    ] * 2
    assert not list(Path(".reflux/checkpoints").rglob("*.*"))


def test_the_students_and_the_controls_head_is_new_and_all_below_it_learned(learned):
    learned("pretrain.learns=student", "pretrain.steps=2")
    file = Path("artifacts/pretrain/student/model.safetensors")
    kept, own = load(file).net.state_dict(), read_dataset(Path("artifacts/ingest/images.json"))
    begun = new_student("resnet8_slim", file, 12, own, 0, torch.device("cpu"))
    assert begun.spec.classes == own.classes == ("dark", "bright")
    changed = {name for name, value in begun.net.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed == {"head.weight", "head.bias"}
    assert "mode" not in json.loads(Path("artifacts/pretrain/model.json").read_text())


def test_what_was_reached_names_the_class_that_is_recognized_least():
    model = pixel_model("resnet8", ("a", "b", "c"), 12, 1, (0.5,), (0.25,))
    images = np.random.default_rng(0).integers(0, 255, (8, 12, 12, 1)).astype(np.uint8)
    with torch.no_grad():
        chosen = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).argmax(1).numpy()
    labels = chosen.copy()
    labels[:2] = (chosen[:2] + 1) % 3
    found = reached("student", model, 40, Shard(images, labels, np.zeros(8, np.uint64)), "abc", torch.device("cpu"))
    assert found.accuracy == pytest.approx(6 / 8)
    recalls = {
        name: (chosen == labels)[labels == number].mean() for number, name in enumerate("abc") if number in labels
    }
    assert found.lowest_recall == pytest.approx(min(recalls.values()))
    assert recalls[found.lowest_class] == min(recalls.values())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["pretrain.mode=supervised"],
            "mode = supervised learns the labels of another dataset: set source",
        ),
        (
            ["pretrain.mode=supervised", "pretrain.source=x", "finetune.strategy=none"],
            "pretrain.mode = supervised would train it; set pretrain.learns to student",
        ),
    ],
)
def test_a_mode_without_what_it_needs_is_one_sentence(settings: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        check_overrides(settings, ROOT / "params.yaml")


def test_weights_of_gray_images_do_not_take_a_color_source(learned):
    learned("pretrain.learns=student", "pretrain.steps=1")
    shutil.move("artifacts/pretrain/student/model.safetensors", "gray.safetensors")
    facts = json.loads((SOURCE / "images.json").read_text())
    (SOURCE / "images.json").write_text(json.dumps(facts | {"channels": 3}))
    with pytest.raises(UserError, match=r"resnet8_slim was pretrained on gray images, and these have 3 channels"):
        learned("pretrain.learns=student", "student.weights=gray.safetensors")
