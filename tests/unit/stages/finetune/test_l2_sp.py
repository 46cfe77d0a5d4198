import pytest
import torch

from reflux.components.core.training.loop import cross_entropy
from reflux.components.modalities.image.models.pixel_model import network
from reflux.components.stages.finetune.l2_sp import backbone, l2_sp, with_l2_sp


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet8", {"head.weight", "head.bias"}),
        ("test_resnet", {"fc.weight", "fc.bias"}),
        ("test_vit", {"head.weight", "head.bias"}),
        ("test_convnext", {"head.fc.weight", "head.fc.bias"}),
        ("deit_tiny_distilled_patch16_224", {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}),
    ],
)
def test_the_backbone_is_all_but_the_head(name: str, head: set[str]):
    net = network(name, 3, 3)
    assert dict(net.named_parameters()).keys() - backbone(net).keys() == head


def test_the_penalty_is_half_of_alpha_times_the_squared_distance_and_pulls_back():
    start = [torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])]
    weights = [torch.tensor([[1.0, 4.0]], requires_grad=True), torch.tensor([2.0], requires_grad=True)]
    penalty = l2_sp(weights, start, alpha=0.1)
    assert penalty.item() == pytest.approx(0.05 * (4 + 1))
    for weight, then in zip(weights, start, strict=True):
        (gradient,) = torch.autograd.grad(penalty, weight, retain_graph=True)
        assert torch.allclose(gradient, 0.1 * (weight - then))
    assert l2_sp(start, start, alpha=0.1) == 0


def test_the_part_of_the_loss_is_the_distance_from_where_the_weights_were_when_it_was_made():
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    loss, logits, labels = with_l2_sp(cross_entropy, [weight], alpha=2.0), torch.zeros(5, 3), torch.arange(5) % 3
    with torch.no_grad():
        weight += 3
    parts = loss(logits, labels)
    assert parts["l2-sp"].tolist() == [18.0] * 5
    assert torch.equal(parts["ce"], cross_entropy(logits, labels)["ce"])
