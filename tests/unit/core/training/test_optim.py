from typing import get_args

import pytest
import torch
from timm import create_model

from reflux.components.core.params.training import Training
from reflux.components.core.training import optim
from reflux.components.modalities.image.models.pixel_model import pixel_model


def test_params_know_every_optimizer():
    assert get_args(Training.model_fields["optimizer"].annotation) == tuple(optim.OPTIMIZERS)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_one_cycle_rises_to_the_peak_and_falls(name: str):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = optim.optimizer([{"params": [weight]}], name, 0.1, 0.0)
    schedule = optim.schedule(optimizer, "one-cycle", 50, 0.2)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 0.098 < max(rates) <= 0.1
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] < 0.01
    assert rates[-1] < 0.01


def test_the_step_schedule_is_the_protocol_of_the_cifar_100_tables():
    """240 epochs, a tenth after 150, 180 and 210 (Tian et al. 2020)."""
    (parameter,) = torch.nn.Linear(1, 1, bias=False).parameters()
    optimizer = optim.optimizer([{"params": [parameter]}], "sgd", 0.05, 0.0)
    schedule = optim.schedule(optimizer, "step", 240, 0.0)
    rates = []
    for _ in range(240):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.05] * 150 + [0.005] * 30 + [0.0005] * 30 + [0.00005] * 30
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["resnet8_slim", "wrn_16_2", "vgg8"])
def test_a_small_net_decays_its_matrices_alone(name: str):
    model = pixel_model(name, ("a", "b"), 32, 3, (0.5,) * 3, (0.25,) * 3)
    vectors, matrices = optim.weight_decay_groups(model, 0.05)
    parameters = list(model.parameters())
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.05, 0.0)
    assert list(map(id, matrices["params"])) == [id(p) for p in parameters if p.ndim > 1]
    assert list(map(id, vectors["params"])) == [id(p) for p in parameters if p.ndim <= 1]


def test_what_a_network_exempts_does_not_decay_wherever_it_is_held():
    net = create_model("vit_tiny_patch16_224", num_classes=2)
    assert {"pos_embed", "cls_token"} <= optim.exempt_from_decay(net)
    groups = optim.weight_decay_groups(torch.nn.ModuleDict({"student": net}), 0.05)
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(net.pos_embed)] == decays[id(net.cls_token)] == 0
    assert decays[id(net.head.weight)] == 0.05
    assert len(decays) == len(list(net.parameters()))
