"""A network takes the widths of a state: another network's of the same layers, which it then answers like."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reflux.components.modalities.image.models.pixel_model import PixelModel, adapted, load, network, pixel_model, save
from reflux.components.modalities.image.models.widths import set_widths

CLASSES = ("cat", "dog", "owl")


def pixels(channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, channels, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("resnet8_slim", "resnet8_tiny"),
        ("wrn_16_1", "wrn_16_1_x0.5"),
        ("vgg8_x0.5", "vgg8_x0.25"),
        ("mobilenetv3_small_100", "mobilenetv3_small_075"),
    ],
)
def test_a_network_with_the_widths_of_another_answers_as_that_one_does(wide: str, narrow: str):
    torch.manual_seed(0)
    other = pixel_model(narrow, CLASSES, 32, 3, (0.5,) * 3, (0.25,) * 3).eval()
    net = network(wide, 3, 3)
    set_widths(net, other.net.state_dict())
    net.load_state_dict(other.net.state_dict())
    assert torch.allclose(PixelModel(net, other.spec).eval()(pixels(3, 32)), other(pixels(3, 32)), atol=1e-6)
    for layer in net.modules():  # what a layer says of itself is what it holds
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)


@pytest.fixture
def pruned() -> PixelModel:
    """As half of the channels of resnet8_slim would be."""
    torch.manual_seed(0)
    half = pixel_model("resnet8_tiny", CLASSES, 16, 1, (0.3,), (0.4,)).eval()
    return PixelModel(half.net, replace(half.spec, name="resnet8_slim", pruned=0.5)).eval()


def test_a_pruned_network_comes_back_as_it_was_and_says_so(pruned: PixelModel, tmp_path: Path):
    save(pruned, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.spec == pruned.spec
    assert again.spec.label == "resnet8_slim, 50% pruned"
    assert torch.equal(again(pixels(1, 16)), pruned(pixels(1, 16)))


def test_it_keeps_its_head_for_its_classes_and_gets_one_of_its_width_for_others(pruned: PixelModel, tmp_path: Path):
    save(pruned, tmp_path / "model.safetensors")
    answers = pruned(pixels(1, 16))
    assert torch.allclose(adapted(load(tmp_path / "model.safetensors"), CLASSES, 16, 1)(pixels(1, 16)), answers)
    others = adapted(load(tmp_path / "model.safetensors"), ("a", "b"), 16, 1)
    assert others.net.get_classifier().weight.shape == (2, 24)
    assert others(pixels(1, 16)).shape == (4, 2)
