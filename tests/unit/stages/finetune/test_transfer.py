from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torch import nn

from reflux.components.core.data.shards import Dataset, Shard
from reflux.components.modalities.image.models.pixel_model import adapted, pixel_model
from reflux.components.stages.finetune import transfer
from reflux.components.stages.finetune.transfer import Probe, freeze_batch_norm, layer_decay_groups, linear_probe

CPU = torch.device("cpu")
DATASET = Dataset(("dark", "bright"), 16, 1, (0.4,), (0.3,))
NO_AUGMENT = {"shift": 0.0, "flip": False, "crop_scale": 1.0, "erase": 0.0}


def shard(count: int, seed: int) -> Shard:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = rng.integers(0, 60, (count, 16, 16, 1)) + 120 * labels[:, None, None, None]
    return Shard(pixels.astype(np.uint8), labels, rng.integers(0, 2**63, count, np.uint64))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    pretrained = pixel_model("tf_efficientnet_lite0", [str(i) for i in range(7)], 32, 3, [0.5] * 3, [0.5] * 3)
    return adapted(pretrained, DATASET.classes, 32, DATASET.channels)


def ignored(*_: object, **__: object) -> None:
    pass


def test_the_teacher_keeps_its_normalization_and_gets_the_datasets_head(teacher):
    assert teacher.spec.classes == DATASET.classes
    assert teacher.spec.mean == (0.5, 0.5, 0.5)
    with torch.inference_mode():
        assert teacher.eval()(torch.zeros(2, 1, 16, 16, dtype=torch.uint8)).shape == (2, 2)


def test_a_linear_probe_learns_and_leaves_the_backbone_alone(teacher, tmp_path: Path):
    before = {name: tensor.clone() for name, tensor in teacher.net.state_dict().items()}
    images: list[int] = []
    probe = Probe(2, 60, 0.01, weight_decay=0.0, batch_size=16, seed=0, augment=NO_AUGMENT)
    rows = linear_probe(
        teacher, shard(40, 1), shard(40, 2), probe, tmp_path, ignored, lambda count, **_facts: images.append(count)
    )
    after = teacher.net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["val_accuracy"] > 0.9
    assert sum(images) == 80
    assert not list(tmp_path.iterdir())


def test_a_linear_probe_in_parts_is_the_same_training(teacher, tmp_path: Path, monkeypatch):
    heads = []
    start = {name: tensor.clone() for name, tensor in teacher.net.state_dict().items()}
    for size in (4096, 7):
        monkeypatch.setattr(transfer, "_PROBE_BATCH", size)
        teacher.net.load_state_dict(start)
        probe = Probe(2, 10, 0.01, weight_decay=0.0, batch_size=16, seed=0, augment=NO_AUGMENT)
        rows = linear_probe(teacher, shard(20, 1), shard(20, 2), probe, tmp_path, ignored, ignored)
        heads.append((teacher.net.classifier.weight.detach().clone(), rows[-1]["val_loss"]))
    assert torch.allclose(heads[0][0], heads[1][0], atol=1e-4)
    assert heads[0][1] == pytest.approx(heads[1][1], abs=1e-4)


def test_a_linear_probe_decays_the_weights_of_its_head(teacher, tmp_path: Path):
    start = {name: tensor.clone() for name, tensor in teacher.net.state_dict().items()}
    norms = []
    for weight_decay in (0.0, 50.0):
        teacher.net.load_state_dict(start)
        probe = Probe(1, 10, 0.01, weight_decay, batch_size=8, seed=0, augment=NO_AUGMENT)
        linear_probe(teacher, shard(8, 1), shard(8, 2), probe, tmp_path, ignored, ignored)
        norms.append(teacher.net.classifier.weight.norm().item())
    assert norms[1] < norms[0] / 2


def test_frozen_batch_norm_keeps_its_statistics_scale_and_shift_in_train_mode(teacher):
    torch.manual_seed(0)
    norms = [name for name, module in teacher.net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    freeze_batch_norm(teacher)
    assert norms
    assert (
        not {f"{name}.{of}" for name in norms for of in ("weight", "bias")}
        & dict(teacher.net.named_parameters()).keys()
    )
    before = {name: tensor.clone() for name, tensor in teacher.net.named_buffers()}
    teacher.train()(torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.net.named_buffers())
    assert not [m for m in teacher.net.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["resnet8", "tf_efficientnet_lite0"])  # torch's BatchNorm, and timm's
def test_frozen_batch_norm_computes_what_timms_does(name: str):
    torch.manual_seed(0)
    model = pixel_model(name, DATASET.classes, 32, 3, [0.5] * 3, [0.5] * 3)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            tensor.uniform_(0.5, 1.5)
    timms = deepcopy(model)
    timms.net = freeze_batch_norm_2d(timms.net)
    freeze_batch_norm(model)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    for mode in (True, False):
        logits = []
        for each in (model, deepcopy(model), timms):
            torch.manual_seed(0)
            logits.append(each.train(mode)(pixels))
        assert torch.equal(logits[0], logits[1])
        torch.testing.assert_close(logits[0], logits[2], rtol=1e-4, atol=1e-4)
    assert model.state_dict().keys() == timms.state_dict().keys()


def test_layer_decay_slows_the_layers_near_the_input(teacher):
    groups = layer_decay_groups(teacher, 0.05, 0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scale[id(teacher.net.classifier.weight)] == 1
    assert scale[id(teacher.net.conv_stem.weight)] < 0.1
    assert len(scale) == len(list(teacher.net.parameters()))


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mlp_30"])
def test_layer_decay_slows_the_small_nets_layer_by_layer(name: str):
    net = pixel_model(name, DATASET.classes, 28, 1, [0.5], [0.5])
    groups = layer_decay_groups(net, 0.05, 0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    in_order = [scale[id(p)] for p in net.net.parameters()]
    assert in_order == sorted(in_order)
    assert in_order[-1] == 1
    layers = len(set(in_order))
    assert layers >= 3
    assert in_order[0] == 0.5 ** (layers - 1)
