"""The stage with a source domain: who teaches, who is compared, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load, pixel_model, save
from reflux.components.stages.finetune import __main__ as finetune
from tests.unit.stages.finetune.resumed import steps_of_resumed
from tests.workspaces import ids, training_workspace, watched, write_shard

DOMAIN = Path("artifacts/ingest/source-domain")
METHODS = ("dan", "deep-coral", "dann")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    for stage in ("finetune", "pretrain"):
        Path("artifacts", stage).mkdir()
    write_shard(DOMAIN / "shards/train", 60, seed=9)
    torch.manual_seed(0)
    save(pixel_model("resnet8", ("a", "b", "c"), 16, 1, (0.5,), (0.25,)), Path("artifacts/pretrain/model.safetensors"))


@pytest.fixture
def adapted(workspace, monkeypatch: pytest.MonkeyPatch):
    """Trains a teacher for two epochs of 6 steps; returns the arguments of the function that trained it."""

    def train(*settings: str) -> dict[str, Any]:
        given = ["strategy=full", "batch_size=8", "lr=0.01", *settings]
        domain = ["ingest.source_domain=elsewhere", "run.checkpoint_every_s=1e-6"]
        params = override_params([*domain, *(f"finetune.{setting}" for setting in given)])
        with monkeypatch.context() as patch:
            calls = watched(patch, finetune, "fit")
            finetune.main(Stage("finetune", params))
        *_, call = calls
        return call

    return train


def shown(call: dict[str, Any], steps: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The pixels and targets of the first steps."""
    batches = call["batches"](0)
    every = [next(batches) for _ in range(steps)]
    targets = zip(*(batch.targets for batch in every), strict=True)
    return torch.cat([batch.pixels for batch in every]), [torch.cat(each) for each in targets]


def test_a_source_domain_alone_teaches_its_labels_half_of_the_time(adapted):
    call = adapted("augment={shift: 0, flip: false}")
    pixels, (labels,) = shown(call, steps=12)
    assert len(pixels) == 12 * 16
    source, train = (
        np.load(f"{folder}/images.npy") for folder in (DOMAIN / "shards/train", "artifacts/ingest/shards/train")
    )
    seen = [image.numpy().tobytes() for image in pixels]
    assert sum(each in {image.tobytes() for image in source} for each in seen) == 12 * 8
    assert sum(each in {image.tobytes() for image in train} for each in seen) == 12 * 8
    assert (labels != UNLABELED).all()
    assert [row["step"] for row in call["result"]] == [6, 12], "an epoch shows as many as have labels"


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns_from_all_three_and_leaves_a_plain_teacher(adapted, method: str):
    call = adapted(f"adaptation={method}", "augment={shift: 0, flip: false}")
    pixels, (labels, from_source) = shown(call, steps=2)
    assert [int((labels == UNLABELED).sum()), int(from_source.sum()), len(pixels)] == [16, 16, 48]
    unlabeled = {image.tobytes() for image in np.load("artifacts/ingest/shards/unlabeled/images.npy")}
    assert all(image.numpy().tobytes() in unlabeled for image in pixels[labels == UNLABELED])
    assert all({"train_ce", f"train_{method}"} <= set(row) for row in call["result"])
    written = load(Path("artifacts/finetune/model.safetensors"))
    state = written.net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in call["model"].teacher.net.state_dict().items())
    assert written.spec.classes == ("dark", "bright")
    assert np.array_equal(call["val"].ids, ids("val")), "the dataset's own validation images choose the weights"


@pytest.mark.parametrize("method", METHODS)
def test_the_weight_of_the_adaptation_counts(adapted, method: str):
    weights = [adapted(f"adaptation={method}", f"adaptation_weight={weight}")["model"] for weight in (0.1, 10)]
    one, other = (next(model.teacher.parameters()) for model in weights)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("settings", [("adaptation=dan",), ("adaptation=dann", "strategy=lp-ft", "l2_sp=0.1"), ()])
def test_an_interrupted_run_ends_with_the_same_teacher_to_the_bit(adapted, monkeypatch, settings: tuple[str, ...]):
    assert steps_of_resumed(adapted, monkeypatch, 8, *settings) < 8 + 12, "it begins anew"


@pytest.mark.parametrize(
    "settings",
    [
        ("strategy=gradual-unfreezing", "freeze_batch_norm=true", "layer_decay=0.8"),
        ("rounds=2", "round_epochs=1"),
        ("accumulate=2", "balance=sampling", "ema_decay=0.9"),
        ("balance=logit-adjustment", "clip_norm=0.1"),
    ],
)
def test_it_goes_with_the_other_settings(adapted, settings: tuple[str, ...]):
    rows = adapted("adaptation=dann", *settings)["result"]
    assert all(np.isfinite(row["train_dann"]) for row in rows)


def test_without_a_source_domain_nothing_is_adapted_and_no_unlabeled_image_read(adapted, monkeypatch):
    for file in (DOMAIN / "shards/train").iterdir():
        file.unlink()
    (DOMAIN / "shards/train").rmdir()
    (DOMAIN / "shards").rmdir()
    call = adapted()
    pixels, targets = shown(call, steps=1)
    assert (len(pixels), len(targets)) == (8, 1)


def test_without_unlabeled_images_it_is_refused_before_training(adapted):
    folder = Path("artifacts/ingest/shards/unlabeled")
    for name in ("images", "labels", "ids"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:0])
    with pytest.raises(UserError, match=r"finetune.adaptation = dan teaches the teacher by unlabeled images, and the"):
        adapted("adaptation=dan")
    assert not Path("artifacts/finetune/model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["finetune.adaptation=dan"],
            "finetune.adaptation = dan makes a labeled source domain and .* set ingest.source_d",
        ),
        (
            [
                *("ingest.source_domain=x", "finetune.strategy=none"),
                "pretrain.weights=artifacts/pretrain/model.safetensors",
            ],
            "ingest.source_domain = x teaches the teacher, and finetune.strategy = none trains none; set",
        ),
        (
            ["finetune.adaptation=dann", "finetune.strategy=feature-extraction", "ingest.source_domain=x"],
            "trains the features, which finetune.strategy = feature-extraction leaves .* set finetune.strategy to full",
        ),
        (
            [
                *("finetune.adaptation=dann", "ingest.source_domain=x", "distill.when=joint"),
                "student.weights=artifacts/pretrain/model.safetensors",
            ],
            "which distill.when = joint leaves as they are; set distill.when to after-transfer",
        ),
    ],
)
def test_params_that_adapt_nothing_are_refused(workspace, settings: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        override_params(settings)
