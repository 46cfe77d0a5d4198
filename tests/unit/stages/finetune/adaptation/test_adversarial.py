"""The reversed gradient, its schedule, and the discriminator's loss by hand."""

import math

import pytest
import torch

from reflux.components.stages.finetune.adaptation.adversarial import (
    discriminator,
    domain_loss,
    reversed_gradient,
    strength,
)


def test_the_strength_rises_from_0_to_nearly_1_as_in_the_paper():
    assert [strength(each) for each in (0.0, 0.1, 1.0)] == pytest.approx([0.0, math.tanh(0.5), math.tanh(5.0)])


def test_the_gradient_alone_is_reversed():
    features = torch.tensor([[1.0, -2.0]], requires_grad=True)
    same = reversed_gradient(features, torch.tensor(0.25))
    assert torch.equal(same, features)
    (gradient,) = torch.autograd.grad((same * torch.tensor([3.0, 4.0])).sum(), features)
    assert gradient.tolist() == [[-0.75, -1.0]]


def test_the_discriminator_learns_the_domains_and_the_features_unlearn_them():
    torch.manual_seed(0)
    source, target = torch.randn(64, 4) + 1.5, torch.randn(64, 4) - 1.5
    judge = discriminator(4)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        loss = domain_loss(judge(source)[:, 0], judge(target)[:, 0])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(2), abs=0.05)
    assert losses[-1] < 0.1
    features = source.clone().requires_grad_()
    before = domain_loss(judge(reversed_gradient(features, torch.tensor(1.0)))[:, 0], judge(target)[:, 0])
    before.backward()
    moved = source - 20 * features.grad
    assert domain_loss(judge(moved)[:, 0], judge(target)[:, 0]) > before, "a step down it confuses the judge"


def test_the_loss_is_the_mean_of_both_domains_cross_entropies():
    source, target = torch.tensor([2.0]), torch.tensor([1.0, -1.0])
    by_hand = (math.log(1 + math.exp(-2)) + (math.log(1 + math.e) + math.log(1 + 1 / math.e)) / 2) / 2
    assert domain_loss(source, target).item() == pytest.approx(by_hand)
