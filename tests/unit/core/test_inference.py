import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from reflux.components.core.data.shards import Shard
from reflux.components.core.inference import predict, validate
from reflux.components.modalities.image.models.pixel_model import pixel_model

CPU = torch.device("cpu")
COUNT = 520  # more than a batch


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pixel_model("resnet8_slim", ("a", "b", "c"), 8, 1, (0.5,), (0.25,))


@pytest.fixture(scope="module")
def split() -> Shard:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 8, 8, 1), np.uint8)
    return Shard(images, rng.integers(0, 3, COUNT), np.arange(COUNT, dtype=np.uint64))


def test_predict_returns_the_logits_of_some_rows_in_eval_mode(model, split: Shard):
    logits = predict(model.train(), split.images, CPU)
    assert logits.shape == (COUNT, 3)
    assert not model.training
    assert torch.allclose(predict(model, split.images, CPU, range(500, COUNT)), logits[500:], atol=0.05)


def test_validate_returns_mean_cross_entropy_and_accuracy(model, split: Shard):
    logits, labels = predict(model, split.images, CPU), torch.from_numpy(split.labels)
    loss, accuracy = validate(model, split, CPU)
    assert loss == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
