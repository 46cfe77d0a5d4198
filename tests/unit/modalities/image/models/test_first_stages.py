from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.layers import stages as stage_ends
from reflux.components.modalities.image.models.first_stages import cut
from reflux.components.modalities.image.models.pixel_model import load, network, parameter_count, pixel_model, save


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("whole", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("stages", [1, 3])
def test_the_features_are_timms_at_that_stage(whole: str, stages: int):
    torch.manual_seed(0)
    net = timm.create_model(whole, num_classes=10).eval()
    with torch.inference_mode():
        [level] = net.forward_intermediates(images(), indices=[stages - 1], norm=False, intermediates_only=True)
        first = cut(net, f"{whole}_stages{stages}", 7)
        pooled = first.forward_head(first.forward_features(images()), pre_logits=True)
        assert torch.allclose(pooled, level.mean((2, 3)), atol=1e-5)
        assert first(images()).shape == (2, 7)
    assert len(stage_ends(first)) == stages


def test_what_is_cut_off_weighs_nothing():
    whole, first = (network(f"tf_efficientnet_lite0{stages}", 10, 3) for stages in ("", "_stages3"))
    assert parameter_count(whole) == 3_383_818
    assert parameter_count(first) == 55_914
    assert not any(isinstance(module, nn.Conv2d) and module.out_channels > 240 for module in first.modules())


def test_a_file_brings_back_the_first_stages(tmp_path: Path):
    model = pixel_model("tf_efficientnet_lite0_stages2", ("a", "b"), 32, 1, (0.5,), (0.25,)).eval()
    save(model, tmp_path / "student.safetensors")
    pixels = torch.arange(2 * 32 * 32).reshape(2, 1, 32, 32) % 256
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "student.safetensors")(pixels), model(pixels))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tf_efficientnet_lite0_stages6", "tf_efficientnet_lite0 has stages 1 to 5"),
        ("tf_efficientnet_lite0_stages0", "tf_efficientnet_lite0 has stages 1 to 5"),
        (
            "tf_eficientnet_lite0_stages2",
            "No model is named tf_eficientnet_lite0_stages2; did you mean tf_efficientnet_l",
        ),
        ("resnet8_slim_stages2", "No model is named resnet8_slim_stages2; did you mean resnet8_slim"),
    ],
)
def test_stages_that_are_not_there_are_a_sentence(name: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        network(name, 10, 3)
