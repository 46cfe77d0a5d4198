import pytest
import torch

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.layers import (
    Layer,
    feature_shapes,
    find_layer,
    logits_and_features,
    rectified,
    stages,
    teacher_outputs,
)
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model

CPU = torch.device("cpu")


def model(name: str, size: int = 32, channels: int = 3) -> PixelModel:
    torch.manual_seed(0)
    return pixel_model(name, ("a", "b", "c"), size, channels, [0.5] * channels, [0.25] * channels)


def pixels(count: int = 3, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    ("name", "size", "number"),
    [
        ("resnet8_slim", 28, 4),
        ("wrn_16_1", 32, 4),
        ("vgg8", 32, 5),
        ("resnet18", 64, 5),
        ("tf_efficientnet_lite0", 64, 5),
        ("mobilenetv3_small_050", 64, 5),
        ("convnext_atto", 64, 4),
        ("regnety_002", 64, 5),
        ("vit_tiny_patch16_224", 224, 12),
        ("swin_tiny_patch4_window7_224", 224, 4),
    ],
)
def test_every_stage_and_the_pooled_features_are_found_in_any_network(name: str, size: int, number: int):
    net = model(name, size).eval()
    assert len(stages(net.net)) == number
    wanted = tuple(find_layer(net, address) for address in [*(f"stage:{n}" for n in range(number)), "pooled"])
    logits, *layers = teacher_outputs(net, wanted, pixels(2, size), CPU)
    assert torch.equal(logits, teacher_outputs(net, (), pixels(2, size), CPU)[0])
    assert [tuple(layer.shape[1:]) for layer in layers] == feature_shapes(net, wanted)
    assert all(layer.ndim == 4 and layer.shape[2] == layer.shape[3] for layer in layers[:-1])
    sides = [layer.shape[2] for layer in layers[:-1]]
    assert sides == sorted(sides, reverse=True)  # channels last would show as a growing second side
    assert layers[-1].shape[0] == 2
    assert torch.allclose(net.net.get_classifier()(layers[-1]), logits, rtol=0.02, atol=0.02)  # of bfloat16


def test_the_last_stage_is_counted_from_the_end_and_a_path_is_taken_as_it_is():
    net = model("resnet18", 64)
    assert find_layer(net, "stage:-1") == find_layer(net, "stage:4") == find_layer(net, "layer4") == Layer("layer4")
    assert find_layer(net, "pooled") == Layer("fc", before=True)
    assert find_layer(net, "layer2.0.conv1") == Layer("layer2.0.conv1")


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("resnet18", 0, Layer("act1", before=True)),
        ("resnet18", -1, Layer("layer4.1.act2", before=True)),
        ("resnet20", -1, Layer("trunk.10.relu", before=True)),
        ("wrn_16_1", -1, Layer("trunk.8", before=True)),
        ("wrn_16_1", -2, Layer("trunk.4")),  # its blocks end with a sum
        ("vgg8", 1, Layer("trunk.4", before=True)),
        ("tf_efficientnet_lite0", -1, Layer("blocks.6")),  # a linear bottleneck, with ReLU6 within
    ],
)
def test_features_before_the_relu_are_those_that_it_rectifies(name: str, number: int, expected: Layer):
    net = model(name, 64).eval()
    for norm in (module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)  # timm begins with blocks that add nothing
    before, after = find_layer(net, f"preact:{number}"), find_layer(net, f"stage:{number}")
    assert before == expected
    _, unrectified, features = teacher_outputs(net, (before, after), pixels(4, 64), CPU)
    assert torch.equal(unrectified.relu() if before.before else unrectified, features)
    assert unrectified.min() < 0
    assert rectified(net, (before, after)) == [False, before.before]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("stage:7", r"resnet18 has no stage:7: its stages are stage:0 \(act1\), stage:1 \(layer1\)"),
        ("stage:-6", "resnet18 has no stage:-6"),
        ("layer2.conv", r"resnet18 has no layer layer2.conv \(did you mean layer2.\S+\?\): its stages are stage:0"),
        ("nowhere", "resnet18 has no layer nowhere: its stages are"),
    ],
)
def test_a_layer_that_does_not_exist_is_a_sentence_that_lists_the_stages(address: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        find_layer(model("resnet18", 64), address)


def test_hooks_are_removed_and_gradients_flow_through_the_features():
    net = model("resnet8_slim", 28, 1)
    wanted = (find_layer(net, "stage:-1"), find_layer(net, "pooled"))
    _, layer, pooled = logits_and_features(net.train(), wanted, pixels(4, 28, 1))
    (layer.square().mean() + pooled.square().mean()).backward()
    assert net.net.trunk[0][0].weight.grad.abs().sum() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_teacher_stays_in_eval_mode_and_its_outputs_have_no_gradient():
    net = model("resnet8_slim", 28, 1).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    outputs = teacher_outputs(net, (find_layer(net, "stage:1"),), pixels(4, 28, 1), CPU)
    assert not any(tensor.requires_grad for tensor in outputs)
    assert all(tensor.dtype == torch.float32 for tensor in outputs)
    assert not net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
