from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import (
    adapted,
    check_classes,
    load,
    network,
    parameter_count,
    pixel_model,
    save,
)
from reflux.components.modalities.image.models.small_nets import (
    SMALL_NETS,
    Dropout,
    base_and_width,
    small_net,
    with_width,
)

CLASSES = ("cat", "dog", "owl")


def student(size: int = 16, channels: int = 1):
    return pixel_model("resnet8_slim", CLASSES, size, channels, [0.3] * channels, [0.4] * channels)


def pixels(count: int = 4, channels: int = 1, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    "name", sorted(set(SMALL_NETS) - {"resnet110", "resnet56", "resnet32x4", "wrn_40_1", "wrn_40_2"})
)
def test_every_small_net_builds_and_learns(name: str):
    model = pixel_model(name, CLASSES, 32, 3, [0.5] * 3, [0.25] * 3)
    logits = model.train()(pixels(2, 3, 32))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    # The sizes that the literature prints for CIFAR-100 (Tian et al. 2020).
    [("resnet20", 0.28e6), ("resnet56", 0.86e6), ("resnet8x4", 1.23e6), ("wrn_16_2", 0.70e6), ("vgg8", 3.97e6)],
)
def test_small_nets_have_the_published_sizes(name: str, parameters: float):
    assert parameter_count(network(name, 100, 3)) == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize(("width", "parameters"), [(30, 24_790), (300, 328_810), (800, 1_276_810)])
def test_mlps_have_two_hidden_layers_for_784_pixels(width: int, parameters: int):
    assert parameter_count(network(f"mlp_{width}", 10, 1)) == parameters
    assert parameters == 785 * width + (width + 1) * width + (width + 1) * 10


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    net, image = network("mlp_1200_dropout", 10, 1), torch.rand(1, 1, 28, 28)
    assert not torch.equal(net.train()(image), net(image))
    assert torch.equal(net.eval()(image), net(image))


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_dropout_zeroes_its_share_and_keeps_the_mean(probability: float):
    torch.manual_seed(0)
    left = Dropout(probability)(torch.ones(999, 101))
    assert (left == 0).float().mean() == pytest.approx(probability, abs=0.005)
    assert left.mean() == pytest.approx(1, abs=0.01)


def test_no_small_net_hides_a_timm_model():
    assert not set(SMALL_NETS) & set(timm.list_models())


@pytest.mark.parametrize(("name", "size"), [("resnet50", 32), ("vgg16", 32), ("inception_v3", 80)])
def test_the_classic_teachers_build(name: str, size: int):
    model = pixel_model(name, CLASSES, size, 3, [0.5] * 3, [0.5] * 3)
    with torch.inference_mode():
        assert model(pixels(2, 1, 28)).shape == (2, 3)


def test_features_and_head_make_the_logits():
    for name in ("tf_efficientnet_lite0", "resnet8"):
        model = pixel_model(name, CLASSES, 32, 3, [0.5] * 3, [0.5] * 3)
        with torch.inference_mode():
            head = model.net.get_classifier()
            assert torch.allclose(head(model.features(pixels(2, 3, 32))), model(pixels(2, 3, 32)), atol=1e-5)


def test_a_model_comes_back_as_it_was(tmp_path: Path):
    model = student()
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.spec == model.spec
    assert not again.training
    assert torch.equal(again(pixels()), model.eval()(pixels()))


def test_the_model_owns_resizing_normalisation_and_channels():
    model = student(8)
    raw = pixels(3, 1, 16)
    x = model.normalized(raw)
    expected = torch.nn.functional.interpolate(raw.float(), (8, 8), mode="bilinear", antialias=True)
    assert torch.allclose(x, (expected / 255 - 0.3) / 0.4, atol=1e-5)
    color = student(16, 3)
    gray = pixels(2, 1, 16)
    assert torch.allclose(color.eval()(gray), color(gray.expand(-1, 3, -1, -1)), atol=1e-6)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UserError, match=r"did you mean .*resnet20"):
        network("resnet_20", 10, 3)
    with pytest.raises(UserError, match="No model is named zzzz"):
        network("zzzz", 10, 3)


def test_a_size_the_network_cannot_take_is_a_sentence():
    with pytest.raises(UserError, match="inception_v3 can't take images of 8 pixels"):
        pixel_model("inception_v3", CLASSES, 8, 3, [0.5] * 3, [0.5] * 3)


def spec_of(model, folder: Path) -> dict[str, str]:
    save(model, folder / "whole.safetensors")
    with safe_open(folder / "whole.safetensors", framework="pt") as file:
        return file.metadata()


def test_foreign_damaged_and_missing_files_are_sentences(tmp_path: Path):
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="was not written by Reflux"):
        load(tmp_path / "foreign.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors", metadata=spec_of(student(), tmp_path))
    with pytest.raises(UserError, match="does not fit today's resnet8_slim"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load(tmp_path / "damaged.safetensors")
    with pytest.raises(UserError, match="is missing"):
        load(tmp_path / "none.safetensors")


def test_a_head_for_other_classes_is_refused():
    path = Path("artifacts/finetune/model.safetensors")
    with pytest.raises(UserError, match="a head for 3 classes but the dataset has 2"):
        check_classes(student(), CLASSES[:2], path)
    with pytest.raises(UserError, match="'dog' where the dataset has 'fox'"):
        check_classes(student(), ("cat", "fox", "owl"), path)
    check_classes(student(), CLASSES, path)


@pytest.mark.parametrize(
    ("name", "size", "channels", "sentence"),
    [
        ("resnet8_slim", 16, 3, "was pretrained on gray images, and these have 3 channels: set ingest.channels to 1"),
        ("vit_tiny_patch16_224", 40, 1, "vit_tiny_patch16_224 can't take images of 40 pixels .*: raise image_size"),
    ],
)
def test_a_pretrained_network_that_can_not_see_the_images_is_one_sentence(name, size, channels, sentence):
    pretrained = pixel_model(name, CLASSES, 224 if "vit" in name else 16, 1, [0.5], [0.25])
    with pytest.raises(UserError, match=sentence):
        adapted(pretrained, ("a", "b"), size, channels)


def test_tensors_that_share_memory_are_saved_under_each_of_their_names(tmp_path: Path):
    model = student()
    block = model.net.trunk[2]
    block.second[1] = block.first[1]  # as CoaT's parallel blocks share theirs
    save(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert tensors.keys() == model.net.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.net.state_dict().items())


def test_a_network_of_timms_with_shared_blocks_comes_back_as_it_was(tmp_path: Path):
    model = pixel_model("coat_tiny", CLASSES, 224, 3, [0.5] * 3, [0.25] * 3).eval()
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert torch.allclose(again(pixels(1, 3, 32)), model(pixels(1, 3, 32)), atol=1e-5)


def test_a_width_multiplier_in_the_name_scales_the_channels():
    def shapes(name: str) -> list[tuple[int, ...]]:
        return [tuple(each.shape) for each in network(name, 10, 1).parameters()]

    assert shapes("resnet8_slim_x0.5") == shapes("resnet8_tiny")
    assert shapes("resnet8_slim_x1") == shapes("resnet8_slim")
    for name in ("wrn_16_1_x0.5", "vgg8_x0.25", "mlp_300_x0.1", "resnet14_slim_x1.25"):
        base, _ = base_and_width(name)
        assert shapes(name) != shapes(base)
        model = pixel_model(name, ("a", "b"), 28, 1, (0.5,), (0.2,)).eval()
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 2)


@pytest.mark.parametrize("name", ["resnet8_slim_x0.75", "resnet8_slim", "mlp_300_x2", "resnet32x4", "resnet8x4_x0.5"])
def test_names_with_a_width_are_read_as_they_are_written(name):
    assert with_width(*base_and_width(name)) == name
    assert small_net(name)


@pytest.mark.parametrize("name", ["resnet8_slim_x", "resnet8_slim_x0", "nothing_x0.5", "mobilenetv3_small_050"])
def test_other_names_have_no_width(name):
    assert base_and_width(name) == (name, 1.0)
    assert small_net(name) is None
