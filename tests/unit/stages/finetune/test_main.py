"""The stage hands the params to what trains: each of them, and the split that each is for."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from reflux.components.core.artifacts import read_json
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.inference import predict
from reflux.components.core.params.augment import Augment
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load, pixel_model, save
from reflux.components.stages.finetune import __main__ as finetune
from reflux.components.stages.finetune import self_training
from reflux.components.stages.finetune.l2_sp import backbone
from reflux.components.stages.finetune.unfreezing import layer_groups
from tests.unit.stages.finetune.resumed import steps_of_resumed
from tests.workspaces import ids, pictures, training_workspace, watched

CPU = torch.device("cpu")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("artifacts/finetune").mkdir()
    Path("artifacts/pretrain").mkdir()


@pytest.fixture
def finetuned(workspace, monkeypatch: pytest.MonkeyPatch):
    """Trains a teacher for four steps; returns the arguments of the function that trained it, and its history."""

    def train(*settings: str, by: str = "fit", network: str = "resnet8", size: int = 16) -> dict[str, Any]:
        torch.manual_seed(0)
        pretrained = pixel_model(network, ("a", "b", "c"), size, 1, (0.5,), (0.25,))
        save(pretrained, Path("artifacts/pretrain/model.safetensors"))
        given = ["strategy=full", "batch_size=20", "lr=0.01", f"image_size={size}", *settings]
        params = override_params([f"finetune.{setting}" for setting in given] + ["run.checkpoint_every_s=1e-6"])
        with monkeypatch.context() as patch:
            calls = watched(patch, finetune, by)
            finetune.main(Stage("finetune", params))
        *_, call = calls  # of the last round
        return call

    return train


def groups_of(call: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The optimizer's group of each parameter, by the parameter's name."""
    groups = {id(p): group for group in call["optimizer"].param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in call["model"].named_parameters()}


def test_weight_decay_reaches_the_optimizer(finetuned):
    groups = groups_of(finetuned("weight_decay=0.07"))
    assert groups["net.head.weight"]["weight_decay"] == 0.07
    assert groups["net.head.bias"]["weight_decay"] == 0


def test_the_optimizer_and_the_augmentation_are_those_of_the_params(finetuned):
    call = finetuned("optimizer=sgd", "lr=0.02", "layer_decay=1", "augment={erase: 1}")
    assert isinstance(call["optimizer"], torch.optim.SGD)
    assert {group["initial_lr"] for group in call["optimizer"].param_groups} == {0.02}
    assert not {image.numpy().tobytes() for image in next(call["batches"](0)).pixels} & set(pictures("train"))


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_layer_decay_reaches_the_optimizer(finetuned, layer_decay: float):
    groups = groups_of(finetuned(f"layer_decay={layer_decay}", "epochs=1", network="tf_efficientnet_lite0"))
    peaks = {name: group["initial_lr"] for name, group in groups.items()}
    assert peaks["net.classifier.weight"] == 0.01
    assert (peaks["net.conv_stem.weight"] < 0.001) == (layer_decay < 1)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_clip_norm_bounds_the_gradient_of_every_step(finetuned, clip_norm: float):
    norms = [row["grad_norm"] for row in finetuned(f"clip_norm={clip_norm}")["result"]]
    assert len(norms) == 2
    assert all((norm <= 0.0101) == bool(clip_norm) for norm in norms)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_only_where_it_is_frozen(finetuned, frozen: bool):
    model = finetuned(f"freeze_batch_norm={str(frozen).lower()}")["model"]
    means = [value for name, value in model.net.named_buffers() if name.endswith("running_mean")]
    assert means
    assert all(bool((mean == 0).all()) == frozen for mean in means)


@pytest.mark.parametrize(("strategy", "by"), [("full", "fit"), ("feature-extraction", "linear_probe")])
def test_the_teacher_learns_from_the_training_split_and_is_chosen_on_the_validation_split(
    finetuned, strategy: str, by: str
):
    call = finetuned(f"strategy={strategy}", by=by)
    assert np.array_equal(call["train"].ids, ids("train"))
    assert np.array_equal(call["val"].ids, ids("val"))


@pytest.mark.parametrize(("epochs", "looks"), [(3, [2, 4, 6]), (15, [*range(2, 31, 2)]), (31, [*range(6, 61, 6), 62])])
def test_validation_images_are_asked_after_each_epoch_or_a_dozen_times(finetuned, epochs: int, looks: list[int]):
    """Two steps an epoch: after each of 15 epochs, after every third of 31, and at the end."""
    call = finetuned(f"epochs={epochs}")
    assert [row["step"] for row in call["result"]] == looks


def test_the_teacher_learns_each_images_own_label(finetuned):
    batch, labels = next(finetuned("augment={shift: 0}")["batches"](0)), pictures("train")
    assert [labels[image.numpy().tobytes()] for image in batch.pixels] == batch.targets[0].tolist()


def test_the_linear_probe_gets_its_params(finetuned):
    settings = {"weight_decay": 0.07, "probe_lr": 0.003, "probe_steps": 11, "probe_views": 3}
    call = finetuned("strategy=feature-extraction", *(f"{k}={v}" for k, v in settings.items()), by="linear_probe")
    probe = vars(call["probe"])
    assert [probe[name] for name in ("weight_decay", "lr", "steps", "views")] == list(settings.values())


def test_l2_sp_replaces_the_backbones_weight_decay_and_leaves_the_heads(finetuned):
    groups = groups_of(finetuned("l2_sp=0.1", "weight_decay=0.07"))
    assert {name for name, group in groups.items() if group["weight_decay"]} == {"net.head.weight"}
    assert groups["net.head.weight"]["weight_decay"] == 0.07


def test_a_strong_l2_sp_keeps_the_backbone_near_its_pretrained_weights_and_not_near_zero(finetuned):
    def moved(*settings: str) -> float:
        net = finetuned("optimizer=sgd", *settings)["model"].net
        start = load(Path("artifacts/pretrain/model.safetensors")).net
        then = backbone(start)
        return sum((weight - then[name]).square().sum().item() for name, weight in backbone(net).items())

    assert moved("l2_sp=20") < moved("l2_sp=0") / 4


def test_the_history_shows_the_penalty(finetuned):
    rows = finetuned("l2_sp=0.1")["result"]
    assert all(0 < row["train_l2-sp"] < row["train_loss"] for row in rows)
    assert rows[0]["train_l2-sp"] < rows[1]["train_l2-sp"]


def changed(call: dict[str, Any]) -> set[str]:
    """The tensors of the teacher that are not those of the pretrained network, or are new."""
    before = load(Path("artifacts/pretrain/model.safetensors")).net.state_dict()
    after = load(Path("artifacts/finetune/model.safetensors")).net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in call["model"].net.state_dict().items())
    return {name for name in after if name not in before or not torch.equal(before[name], after[name])}


SLOWLY = ("lr=1e-6", "weight_decay=0.1")  # no accuracy changes, so that the last weights are kept
NETWORKS = {"test_vit": 160, "test_resnet": 32, "resnet8": 16}


@pytest.mark.parametrize(("network", "size"), NETWORKS.items())
def test_full_trains_every_parameter_and_keeps_batch_norm(finetuned, network: str, size: int):
    call = finetuned(*SLOWLY, "epochs=2", network=network, size=size)
    assert changed(call) == {name for name, _ in call["model"].net.named_parameters()}


@pytest.mark.parametrize(("network", "size"), NETWORKS.items())
def test_gradual_unfreezing_trains_as_many_groups_from_the_top_as_epochs_and_says_so(
    finetuned, capsys: pytest.CaptureFixture[str], network: str, size: int
):
    call = finetuned("strategy=gradual-unfreezing", *SLOWLY, "epochs=2", network=network, size=size)
    groups = layer_groups(call["model"].net)
    trained = {id(parameter) for group in groups[-2:] for parameter in group}
    assert changed(call) == {
        name for name, parameter in call["model"].net.named_parameters() if id(parameter) in trained
    }
    assert f"Note: 2 epochs train the upper 2 of {len(groups)} layer groups" in capsys.readouterr().out


def use_as_it_is(classes: tuple[str, ...], channels: int = 1) -> None:
    """Run the stage on a finished teacher of a size and normalization of its own."""
    file = Path("artifacts/pretrain/model.safetensors")
    save(pixel_model("resnet8", classes, 24, channels, (0.3,) * channels, (0.2,) * channels), file)
    finetune.main(Stage("finetune", override_params(["finetune.strategy=none", f"pretrain.weights={file}"])))


@pytest.mark.parametrize("when", ["after-transfer", "joint"])
def test_a_finished_teacher_is_used_as_it_is(workspace, when: str):
    override_params([f"distill.when={when}", "student.weights=artifacts/pretrain/model.safetensors"])
    use_as_it_is(("dark", "bright"))
    before, after = (load(Path("artifacts", stage, "model.safetensors")) for stage in ("pretrain", "finetune"))
    assert before.spec == after.spec
    weights = after.net.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.net.state_dict().items())
    assert pq.read_table("artifacts/finetune/history.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (("dark", "bright", "other"), "has 3 classes and the dataset has 2: choose another strategy"),
        (("bright", "dark"), "was trained for class 'bright' where the dataset has 'dark': choose another strategy"),
    ],
)
def test_a_finished_teacher_of_other_classes_is_refused(workspace, classes: tuple[str, ...], sentence: str):
    with pytest.raises(UserError, match=sentence):
        use_as_it_is(classes)
    assert not Path("artifacts/finetune/model.safetensors").exists()


def test_lora_trains_the_layers_it_is_given_and_the_head(finetuned):
    pytest.importorskip("peft")
    settings = ["strategy=lora", "lora_rank=2", "lora_targets=[attn.qkv]", "lr=0.1", "weight_decay=0.1", "epochs=1"]
    call = finetuned(*settings, network="test_vit", size=160)
    assert changed(call) == {*(f"blocks.{number}.attn.qkv.weight" for number in range(6)), "head.weight", "head.bias"}
    start = load(Path("artifacts/pretrain/model.safetensors")).net.blocks[0].attn.qkv.weight
    weight = call["model"].net.blocks[0].attn.qkv.weight
    assert torch.linalg.matrix_rank(weight - start, rtol=1e-4) == 2


STRATEGIES = {
    "full": [],
    "gradual-unfreezing": ["strategy=gradual-unfreezing", "weight_decay=0.1"],
    "lp-ft, L2-SP": ["strategy=lp-ft", "l2_sp=0.1"],
}


@pytest.mark.parametrize("settings", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("moment", [2, 5, 8])
def test_an_interrupted_run_ends_with_the_same_teacher_to_the_bit(finetuned, monkeypatch, settings, moment: int):
    """Four epochs of two steps each, killed as one ends and as one begins."""
    assert steps_of_resumed(finetuned, monkeypatch, moment, "epochs=4", *settings) < moment + 8, "it begins anew"


@pytest.mark.parametrize("moment", [2, 5])
def test_an_interrupted_second_round_ends_with_the_same_teacher_to_the_bit(finetuned, monkeypatch, moment: int):
    """Four steps of the first round, and six or more of the second; killed as that begins and as it ends an epoch."""
    rounds = ("rounds=2", "round_epochs=2")
    assert steps_of_resumed(finetuned, monkeypatch, 4 + moment, *rounds) < 4 + moment + 4 + 6


def taught_in_rounds(finetuned, monkeypatch: pytest.MonkeyPatch, *settings: str) -> list[dict[str, Any]]:
    """Train two rounds, the second for an epoch; returns the arguments of each round's training."""
    with monkeypatch.context() as patch:
        calls = watched(patch, finetune, "_train")
        finetuned("rounds=2", "round_epochs=1", *settings)
    return calls


def test_a_second_round_learns_what_the_first_ones_teacher_labels_in_views_of_its_own(finetuned, monkeypatch):
    first, second = taught_in_rounds(finetuned, monkeypatch, "round_augment={erase: 1, flip: false}")
    lesson = second["lesson"]
    assert np.array_equal(lesson.images.ids[:40], ids("train"))
    assert np.array_equal(lesson.images.labels[:40], first["lesson"].images.labels)
    assert len(lesson.images) > 40
    assert set(lesson.images.ids[40:]) <= set(ids("unlabeled"))
    unlabeled = open_shard(Path("artifacts/ingest/shards/unlabeled"))
    predicted = dict(zip(unlabeled.ids, predict(first["teacher"], unlabeled.images, CPU).argmax(1), strict=True))
    assert lesson.images.labels[40:].tolist() == [predicted[each] for each in lesson.images.ids[40:]]
    assert (lesson.epochs, lesson.augment) == (1, Augment(erase=1))
    assert [row["step"] for row in second["result"]] == [len(lesson.images) // 20]


def test_the_first_round_is_that_of_a_single_one(finetuned, monkeypatch):
    first, _ = taught_in_rounds(finetuned, monkeypatch)
    alone = finetuned("rounds=1")
    one, other = first["teacher"].state_dict(), alone["model"].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("accuracies", [(0.6, 0.9), (0.9, 0.6)])
def test_validation_images_choose_the_round_whose_teacher_is_kept_and_each_is_told(
    finetuned, monkeypatch, capsys: pytest.CaptureFixture[str], accuracies: tuple[float, float]
):
    given = iter(accuracies)
    monkeypatch.setattr(finetune, "validate", lambda *_: (0.0, next(given)))
    calls = taught_in_rounds(finetuned, monkeypatch)
    best = calls[accuracies.index(0.9)]["teacher"].net.state_dict()
    kept = load(Path("artifacts/finetune/model.safetensors")).net.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in best.items())
    written = read_json(Path("artifacts/finetune/rounds.json"))
    assert [row["val_accuracy"] for row in written] == list(accuracies)
    assert [row["kept"] for row in written] == [accuracy == 0.9 for accuracy in accuracies]
    assert f"({100 * (accuracies[1] - accuracies[0]):+.2f} points)" in capsys.readouterr().out
    phases = pq.read_table("artifacts/finetune/history.parquet")["phase"].to_pylist()
    assert list(dict.fromkeys(phases)) == ["full", "round-2-full"]


def test_one_round_does_not_open_the_unlabeled_images(finetuned):
    shutil.rmtree("artifacts/ingest/shards/unlabeled")
    finetuned("rounds=1")
    assert read_json(Path("artifacts/finetune/rounds.json")) == []


def test_rounds_without_unlabeled_images_are_refused_before_training(finetuned):
    folder = Path("artifacts/ingest/shards/unlabeled")
    for name in ("images", "labels", "ids"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:0])
    with pytest.raises(UserError, match=r"finetune.rounds = 2 teaches the teacher by unlabeled images, and the"):
        finetuned("rounds=2")
    assert not Path("artifacts/finetune/model.safetensors").exists()


def test_a_teacher_that_is_right_by_chance_teaches_no_second_round(
    finetuned, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(self_training, "confidence_for", lambda *_: np.inf)
    with monkeypatch.context() as patch:
        calls = watched(patch, finetune, "_train")
        finetuned("rounds=3")
    assert len(calls) == 1
    assert len(read_json(Path("artifacts/finetune/rounds.json"))) == 1
    assert "Note: round 1 is the last: half of its teacher" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["feature-extraction", "gradual-unfreezing"])
def test_rounds_are_of_every_strategy(finetuned, monkeypatch, strategy: str):
    by = "linear_probe" if strategy == "feature-extraction" else "fit"
    with monkeypatch.context() as patch:
        calls = watched(patch, finetune, by)
        finetuned("rounds=2", f"strategy={strategy}", "weight_decay=0.1", by=by)
    assert len(calls) == 2
    assert len(read_json(Path("artifacts/finetune/rounds.json"))) == 2
