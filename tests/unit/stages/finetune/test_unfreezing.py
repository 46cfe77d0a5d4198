import pytest
from torch import nn

from reflux.components.modalities.image.models.pixel_model import network
from reflux.components.stages.finetune.unfreezing import frozen, layer_groups


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("resnet8", "trunk.0.0.weight", 5),
        ("test_resnet", "conv1.0.weight", 6),
        ("test_efficientnet", "conv_stem.weight", 7),
        ("test_vit", "patch_embed.proj.weight", 8),
        ("test_convnext", "stem.0.weight", 6),
        ("poolformer_s12", "stem.conv.weight", 12),  # which has no group_matcher
    ],
)
def test_every_parameter_is_in_one_group_from_the_input_to_the_head(name: str, first: str, count: int):
    net = network(name, 3, 3)
    groups = [[id(parameter) for parameter in group] for group in layer_groups(net)]
    assert sorted(each for group in groups for each in group) == sorted(id(p) for p in net.parameters())
    assert len(groups) == count
    assert id(net.get_parameter(first)) in groups[0]
    assert {id(parameter) for parameter in net.get_classifier().parameters()} <= set(groups[-1])


@pytest.mark.parametrize(
    ("step", "left_alone"), [(0, "abc"), (4, "abc"), (5, "ab"), (9, "ab"), (10, "a"), (15, ""), (99, "")]
)
def test_one_more_group_is_trained_each_epoch(step: int, left_alone: str):
    named = {name: nn.Parameter() for name in "abcd"}
    rested = frozen([[parameter] for parameter in named.values()], step, epoch=5)
    assert [id(parameter) for parameter in rested] == [id(named[name]) for name in left_alone]
