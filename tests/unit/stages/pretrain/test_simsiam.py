from itertools import islice

import numpy as np
import pytest
import torch

from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.pretrain.simsiam import SimSiam, loss, pairs_of_views, simsiam

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (4, 2, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def model() -> PixelModel:
    torch.manual_seed(0)
    return pixel_model("resnet8_slim", ("a", "b", "c"), 12, 1, [0.5], [0.25])


def test_the_loss_by_hand_and_no_gradient_flows_through_the_projections():
    predictions = [torch.tensor([[3.0, 0.0]]).requires_grad_(), torch.tensor([[0.0, 2.0]]).requires_grad_()]
    projections = [torch.tensor([[0.0, 9.0]]).requires_grad_(), torch.tensor([[1.0, 1.0]]).requires_grad_()]
    value = simsiam(*predictions, *projections)
    assert value.item() == pytest.approx(-0.5 * 0.5**0.5 - 0.5)
    gradients = torch.autograd.grad(value, [*predictions, *projections], allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, False, True, True]


def test_an_image_without_a_label_counts_for_the_views_alone():
    torch.manual_seed(0)
    output = torch.tensor([[2.0, 0.0]] * 4), *torch.randn(4, 4, 5).unbind()
    parts = loss(output, torch.tensor([0, -1, -1, -1]))
    assert parts["ce"].tolist() == pytest.approx([4 * 0.126928, 0, 0, 0], abs=1e-5), "their mean is the labeled one's"
    assert parts["simsiam"].shape == (4,)
    assert loss(output, torch.tensor([-1] * 4))["ce"].tolist() == [0, 0, 0, 0]


def test_labels_teach_the_head_alone_and_views_the_rest():
    network = SimSiam(model())
    head = [*network.model.net.head.parameters()]
    backbone = [value for name, value in network.model.named_parameters() if "head" not in name]
    heads = [*network.projector.parameters(), *network.predictor.parameters()]
    for part, learns, stays in (("ce", head, backbone + heads), ("simsiam", backbone + heads[:1], head)):
        value = loss(network(PIXELS), torch.tensor([0, 1, 2, 0]))[part].sum()
        gradients = torch.autograd.grad(value, learns + stays, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [True] * len(learns) + [False] * len(stays)
    assert torch.equal(network.eval()(PIXELS[:, 0]), network.model(PIXELS[:, 0]))


def test_an_image_is_seen_in_two_views_that_never_repeat_and_from_any_step_on():
    rng = np.random.default_rng(0)
    images = Shard(rng.integers(0, 256, (20, 12, 12, 1), np.uint8), np.arange(20) % 3, np.arange(20, dtype=np.uint64))
    batches = pairs_of_views(Views(images, 3, {"shift": 0.5, "flip": True, "crop_scale": 0.2, "erase": 0.5}), 20, CPU)
    several = list(islice(batches(0), 3))
    views = {view.numpy().tobytes() for batch in several for pair in batch.pixels for view in pair}
    assert len(views) == 3 * 20 * 2
    again = next(batches(2))
    assert torch.equal(again.pixels, several[2].pixels)
    assert torch.equal(again.targets[0], several[2].targets[0])
    assert sorted(again.targets[0].tolist()) == sorted(images.labels.tolist())
