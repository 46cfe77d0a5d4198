"""The stage hands its params to what trains, and each split to what it is for."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from reflux.components.core import student
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.core.training.loop import cross_entropy
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model, save
from reflux.components.stages.distill import __main__ as distill
from reflux.components.stages.distill import trainer
from reflux.components.stages.distill.losses.crd import Contrast
from reflux.components.stages.distill.losses.logits import kd
from reflux.components.stages.distill.modules import ProbedStudent
from reflux.components.stages.label import __main__ as label
from tests.workspaces import ids, pictures, training_workspace, watched

PARTS = {"train_ce", "train_kd", "train_vkd"}


@pytest.fixture
def distilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Distills a student for some steps; returns the arguments of the function that trained it, and its history."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    teacher = pixel_model("resnet8", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    save(teacher, Path("artifacts/finetune/model.safetensors"))

    def train(*settings: str) -> list[dict[str, Any]]:
        params = override_params(["student.steps=2", "student.eval_every=1", *settings])
        for stage, module in (("label", label), ("distill", distill)):
            Path("artifacts", stage).mkdir()
            if stage == "distill":
                calls = watched(monkeypatch, student, "fit")
            module.main(Stage(stage, params))
        return calls

    return train


@pytest.mark.parametrize("method", ["kd", "deep-mutual-learning"])
def test_the_student_learns_from_labeled_and_unlabeled_images_by_its_params_and_is_chosen_on_validation_images(
    distilled, method: str
):
    settings = ["student.weight_decay=0.07", "student.clip_norm=0.01", "student.augment={shift: 0}"]
    (call,) = distilled(f"distill.method={method}", *settings)
    assert sorted(call["train"].ids) == sorted([*ids("train"), *ids("unlabeled")])
    assert np.array_equal(call["val"].ids, ids("val"))
    images = {image.numpy().tobytes() for image in next(call["batches"](0)).pixels}
    assert images <= {*pictures("train"), *pictures("unlabeled")}
    assert {group["weight_decay"] for group in call["optimizer"].param_groups} == {0.0, 0.07}
    assert all(row["grad_norm"] <= 0.0101 for row in call["result"])


def test_a_method_for_more_classes_is_refused(distilled):
    with pytest.raises(UserError, match="dkd needs at least 3 classes, and there are 2"):
        distilled("distill.method=dkd")


def test_peers_weigh_their_labels_and_each_other_by_the_params(distilled):
    weights = ["distill.label_weight=0.25", "distill.teacher_weight=3"]
    (call,) = distilled("distill.method=deep-mutual-learning", *weights)
    loss = call["objective"].loss
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    labels, known = torch.tensor([0]), torch.ones(1)
    parts = loss((one, other), labels, known, labels)
    both = sum(cross_entropy(logits, labels)["ce"] for logits in (one, other))
    p, q = one.softmax(1), other.softmax(1)
    divergences = (p * (p / q).log() + q * (q / p).log()).sum(1)
    assert torch.allclose(parts["ce"], 0.25 * both)
    assert torch.allclose(parts["deep-mutual-learning"], 3 * divergences)


@pytest.mark.parametrize("method", ["kd", "deep-mutual-learning"])
def test_classes_are_balanced_by_the_labeled_images_alone(distilled, method: str):
    balanced = ["student.balance=sampling", "student.batch_size=80", "student.augment={shift: 0}"]
    (call,) = distilled(f"distill.method={method}", *balanced)
    label_of = pictures("train") | pictures("unlabeled")
    labels = [label_of[image.numpy().tobytes()] for image in next(call["batches"](0)).pixels]
    assert [labels.count(label) for label in (0, 1, -1)] == [20, 20, 40]


@pytest.mark.parametrize("method", ["kd", "deep-mutual-learning"])
def test_the_priors_are_those_of_the_labeled_images_and_adjust_their_loss_alone(distilled, method: str):
    (call,) = distilled(f"distill.method={method}", "student.balance=logit-adjustment", "distill.label_weight=1")
    count = np.bincount(list(pictures("train").values()))
    logits, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    label, known, index = torch.tensor([0]), torch.ones(1), torch.tensor([0])
    pi, odds = count / count.sum(), [np.exp([2.0, 0.0]), np.exp([0.0, 0.0])]
    losses = [-np.log(pi[0] * each[0] / (pi * each).sum()) for each in odds]
    if method == "kd":
        parts = call["objective"].loss(logits, other, label, known, index)
        assert parts["ce"].item() == pytest.approx(losses[0])
        assert parts["kd"].item() == pytest.approx(kd(logits, other, 4.0).item())
    else:
        parts = call["objective"].loss((logits, other), label, known, index)
        assert parts["ce"].item() == pytest.approx(sum(losses))


def test_the_memory_banks_are_filled_before_the_first_step(distilled, monkeypatch: pytest.MonkeyPatch):
    """No image's row is noise: every row is the embedding of the image's first view."""
    banks = []

    def first_step(model, *arguments: Any, **keywords: Any) -> list[dict[str, float]]:
        banks.append({name: bank.clone() for name, bank in model.memories[0].named_buffers()})
        return fit(model, *arguments, **keywords)

    fit = student.fit
    monkeypatch.setattr(student, "fit", first_step)
    filled, seen = {side: [] for side in ("student", "teacher")}, []
    fill = Contrast.fill

    def watched_fill(memory: Contrast, own: torch.Tensor, other: torch.Tensor, indices: torch.Tensor) -> None:
        fill(memory, own, other, indices)
        filled["student"].append(torch.nn.functional.normalize(memory.embed_student(own)).detach())
        filled["teacher"].append(torch.nn.functional.normalize(memory.embed_teacher(other)).detach())
        seen.append(indices)

    monkeypatch.setattr(Contrast, "fill", watched_fill)
    distilled("distill.method={name: crd, negatives: 4}")
    for side, rows in filled.items():
        assert torch.allclose(banks[0][f"{side}_bank"][torch.cat(seen)], torch.cat(rows), atol=1e-6)
    assert sorted(torch.cat(seen).tolist()) == list(range(len(ids("train")) + len(ids("unlabeled"))))


def test_a_loss_rises_over_its_warmup(distilled):
    (call,) = distilled("distill.method=[{name: dist, warmup: 0.75}, kd]")
    assert call["objective"].warmups == {"dist": 0.75}


PHASES = ("student.weights=distilled-features", "distill.finish=labels", "student.steps=20", "distill.finish_lr=0.003")


def test_the_steps_are_divided_among_features_soft_labels_and_labels(distilled):
    calls = distilled(*PHASES, "student.augment={shift: 0}")
    assert [call["setup"].recipe.steps for call in calls] == [6, 12, 2], "the control's 20 together"
    assert [call["setup"].recipe.lr for call in calls] == [0.01, 0.01, 0.003]
    everything, labeled = {*ids("train"), *ids("unlabeled")}, {*ids("train")}
    assert [{*call["train"].ids} for call in calls] == [everything, everything, labeled]
    features, soft, labels = calls
    assert isinstance(features["model"], ProbedStudent)
    assert features["model"].student is soft["model"] is labels["model"]
    assert [sorted(row.keys() & PARTS) for row in (call["result"][-1] for call in calls)] == [
        ["train_ce", "train_vkd"],
        ["train_ce", "train_kd"],
        ["train_ce"],
    ]
    batch = next(labels["batches"](0))
    own = pictures("train")
    assert [own[image.numpy().tobytes()] for image in batch.pixels] == batch.targets[0].tolist()
    phases = pq.read_table("artifacts/distill/history.parquet").to_pandas()["phase"]
    assert phases.drop_duplicates().tolist() == ["features", "distill", "labels"]


def test_an_assistant_teaches_its_features_too(distilled):
    calls = distilled(*PHASES, "distill.method={name: teacher-assistant, assistants: [resnet8]}")
    assert [call["setup"].recipe.steps for call in calls] == [20, 6, 12, 2]
    assert calls[1]["model"].projector.each[0].out_features == 64, "resnet8's features"


def test_every_generation_has_weights_and_an_order_of_its_own(distilled, monkeypatch: pytest.MonkeyPatch):
    """Of the seed and its number; the student's are those of the seed, as the control's."""
    begun = []
    untrained = trainer.untrained

    def kept(*arguments: Any) -> PixelModel:
        begun.append(untrained(*arguments))
        return copy.deepcopy(begun[-1])

    monkeypatch.setattr(trainer, "untrained", kept)
    calls = distilled("distill.method={name: born-again, generations: 3}", "seed=5")
    batches = [next(call["batches"](0)).pixels.numpy().tobytes() for call in calls]
    assert len(set(batches)) == len(calls) == 3
    heads = [model.net.head.weight for model in begun]
    for number, head in enumerate(heads, 1):
        torch.manual_seed(distill.seed_before(5, number))
        expected = pixel_model("resnet8_slim", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
        assert torch.equal(head, expected.net.head.weight)
    assert not torch.equal(*heads)
