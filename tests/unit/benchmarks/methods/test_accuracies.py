import numpy as np
import torch

from benchmarks.harness.training import CPU
from benchmarks.methods.accuracies import measured
from benchmarks.methods.training import untrained
from reflux.components.core.data.shards import Shard
from reflux.components.core.inference import predict


def test_several_generations_of_one_kind_are_an_ensemble_too():
    torch.manual_seed(0)
    net, other, larger = untrained("resnet8_slim", 0), untrained("resnet8_slim", 1), untrained("resnet8", 0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 28, 28, 1)).astype(np.uint8)
    mean = torch.stack([predict(model, images, CPU).softmax(1) for model in (other, net)]).mean(0)
    test = Shard(images, mean.argmax(1).numpy(), np.arange(200, dtype=np.uint64))
    assert measured([other, net], test)["/ensemble"] == 100
    assert measured([other, net], test)[""] < 100
    assert list(measured([larger, net], test)) == list(measured([net], test)) == [""]
