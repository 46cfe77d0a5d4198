"""The stage hands its params to what trains, and each split to what it is for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.core import student
from components.core.models.pixel_model import pixel_model, save
from components.core.params.file import override_params
from components.core.runtime.stage import Stage
from components.core.training.loop import cross_entropy
from components.distill import __main__ as distill
from components.label import __main__ as label
from tests.workspaces import ids, pictures, training_workspace, watched


@pytest.fixture
def distilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Distills a student for some steps; returns the arguments of the function that trained it, and its history."""
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    teacher = pixel_model("resnet8", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    save(teacher, Path("artifacts/finetune/model.safetensors"))

    def train(*settings: str) -> dict[str, Any]:
        params = override_params(["student.steps=2", "student.eval_every=1", *settings])
        for stage, module in (("label", label), ("distill", distill)):
            Path("artifacts", stage).mkdir()
            if stage == "distill":
                calls = watched(monkeypatch, student, "fit")
            module.main(Stage(stage, params))
        (call,) = calls
        return call

    return train


@pytest.mark.parametrize("method", ["kd", "deep-mutual-learning"])
def test_the_student_learns_from_labeled_and_unlabeled_images_by_its_params_and_is_chosen_on_validation_images(
    distilled, method: str
):
    settings = ["student.weight_decay=0.07", "student.clip_norm=0.01", "student.augment={shift: 0}"]
    call = distilled(f"distill.method={method}", *settings)
    assert sorted(call["train"].ids) == sorted([*ids("train"), *ids("unlabeled")])
    assert np.array_equal(call["val"].ids, ids("val"))
    images = {image.numpy().tobytes() for image in next(call["batches"](0)).pixels}
    assert images <= {*pictures("train"), *pictures("unlabeled")}
    assert {group["weight_decay"] for group in call["optimizer"].param_groups} == {0.0, 0.07}
    assert all(row["grad_norm"] <= 0.0101 for row in call["result"])


def test_peers_weigh_their_labels_and_each_other_by_the_params(distilled):
    loss = distilled("distill.method=deep-mutual-learning", "distill.label_weight=0.25", "distill.teacher_weight=3")[
        "loss"
    ]
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    labels, known = torch.tensor([0]), torch.ones(1)
    parts = loss((one, other), labels, known, labels)
    both = sum(cross_entropy(logits, labels)["ce"] for logits in (one, other))
    p, q = one.softmax(1), other.softmax(1)
    divergences = (p * (p / q).log() + q * (q / p).log()).sum(1)
    assert torch.allclose(parts["ce"], 0.25 * both)
    assert torch.allclose(parts["deep-mutual-learning"], 3 * divergences)
