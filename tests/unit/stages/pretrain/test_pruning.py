"""Pruned networks: what goes, what stays, and what starts from it. Where torch-pruning is missing, one sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides, override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import (
    PixelModel,
    load,
    network,
    parameter_count,
    pixel_model,
    save,
)
from reflux.components.stages.control import __main__ as control
from reflux.components.stages.pretrain import __main__ as pretrain
from reflux.components.stages.pretrain import pruning
from reflux.components.stages.pretrain.pruning import prune
from tests.workspaces import ROOT, training_workspace

CLASSES = ("dark", "bright")
with_package = pytest.mark.usefixtures("package")


@pytest.fixture
def package() -> None:
    pytest.importorskip("torch_pruning", reason="it needs torch-pruning")


def student(name: str = "resnet8_slim", size: int = 12) -> PixelModel:
    torch.manual_seed(0)
    return pixel_model(name, CLASSES, size, 1, (0.4,), (0.3,)).eval()


def images(size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (4, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def with_idle_channels(narrow: PixelModel, name: str) -> PixelModel:
    """A wider network that answers as a narrow one does: its further channels, which come first, are zero."""
    net = network(name, len(CLASSES), 1)
    state = {}
    for key, wide in net.state_dict().items():
        own = narrow.net.state_dict()[key]
        state[key] = torch.ones_like(wide) if key.endswith("running_var") else torch.zeros_like(wide)
        last = tuple(slice(-length, None) for length in own.shape)
        state[key][last] = own
    net.load_state_dict(state)
    return PixelModel(net, replace(narrow.spec, name=name)).eval()


@with_package
def test_channels_that_do_nothing_go_first():
    """And the network is built again from its file, by its name and the tensors' shapes."""
    narrow = student("resnet8_tiny")
    wide = with_idle_channels(narrow, "resnet8_slim")
    assert torch.allclose(wide(images()), narrow(images()), atol=1e-5)
    before = parameter_count(wide)
    left = prune(wide, 0.5)
    assert torch.allclose(left(images()), narrow(images()), atol=1e-5)
    assert parameter_count(left) == parameter_count(narrow)
    assert (left.spec.name, left.spec.pruned) == ("resnet8_slim", 0.5)
    assert parameter_count(wide) == before, "the network itself is not changed"


@with_package
@pytest.mark.parametrize("name", ["wrn_16_1", "vgg8_x0.25", "mobilenetv3_small_050"])
def test_networks_with_other_layers_are_pruned_and_saved_too(name: str, tmp_path: Path):
    dense = student(name, 32)
    left = prune(dense, 0.5)
    assert parameter_count(left) < 0.5 * parameter_count(dense)
    save(left, tmp_path / "model.safetensors")
    assert torch.allclose(load(tmp_path / "model.safetensors")(images(32)), left(images(32)), atol=1e-5)


@with_package
@pytest.mark.parametrize(
    ("name", "size", "share", "sentence"),
    [
        ("mlp_30", 28, 0.5, r"student\.prune can't make mlp_30 narrower"),
        ("resnet8_tiny_x0.5", 12, 0.95, r"student\.prune = 0\.95 removes no channel of resnet8_tiny_x0\.5"),
    ],
)
def test_a_network_that_can_not_be_narrower_is_one_sentence(name: str, size: int, share: float, sentence: str):
    with pytest.raises(UserError, match=sentence):
        prune(student(name, size), share)


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pruning, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package torch-pruning: `pip install torch-pruning`"):
        prune(student(), 0.5)


@pytest.mark.parametrize("weights", ["random", "distilled-features"])
def test_what_is_not_trained_is_not_pruned(weights: str):
    with pytest.raises(UserError, match=f"removes channels of a trained network, and weights = {weights} is none"):
        check_overrides([f"student.weights={weights}", "student.prune=0.5"], ROOT / "params.yaml")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a student that was trained elsewhere."""
    monkeypatch.chdir(training_workspace(tmp_path))
    save(student(), Path("big.safetensors"))
    for stage in ("pretrain", "control"):
        Path("artifacts", stage).mkdir()
    return tmp_path


def run(main: Any, stage: str, *settings: str) -> PixelModel:
    main(Stage(stage, override_params(["student.weights=big.safetensors", "student.steps=2", *settings])))
    return load(Path("artifacts", "pretrain/student" if stage == "pretrain" else stage, "model.safetensors"))


@with_package
def test_student_and_control_start_from_what_is_left_and_the_origin_says_so(workspace: Path, capsys):
    whole = parameter_count(run(pretrain.main, "pretrain"))
    left = run(pretrain.main, "pretrain", "student.prune=0.5")
    count = parameter_count(left)
    assert count < 0.5 * whole
    origin = read_json(Path("artifacts/pretrain/student/model.json"))
    assert (origin["weights"], origin["pruned"], origin["parameters"]) == ("big.safetensors", 0.5, count)
    assert f"Note: {count:,} of {whole:,} parameters of resnet8_slim are left after pruning" in capsys.readouterr().out
    trained = run(control.main, "control")
    assert trained.spec == left.spec
    assert parameter_count(trained) == count
    assert not torch.equal(trained(images()), left(images())), "it is trained"


def test_a_pruned_network_is_no_start_for_another(workspace: Path):
    half = student("resnet8_tiny")
    pruned = PixelModel(half.net, replace(half.spec, name="resnet8_slim", pruned=0.5))
    save(pruned, Path("big.safetensors"))
    with pytest.raises(UserError, match=r"student\.weights = big\.safetensors was pruned before"):
        run(pretrain.main, "pretrain")
