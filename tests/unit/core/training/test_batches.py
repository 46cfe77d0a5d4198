import threading
from itertools import islice

import numpy as np
import pytest
import torch

from reflux.components.core.data.shards import Shard
from reflux.components.core.params.augment import Augment
from reflux.components.core.training import batches
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.modalities.image.views.mixing import Views


def test_fetching_ahead_and_in_line_give_the_same_batches(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    images = Shard(rng.integers(0, 256, (30, 8, 8, 1)).astype(np.uint8), np.arange(30), np.arange(30, dtype=np.uint64))
    views = Views(images, 0, Augment(shift=0.2, flip=True).model_dump())

    def first(begin: int) -> list[batches.Batch]:
        cpu = torch.device("cpu")
        training = TrainingViews(views, 2, lambda indices, _numbers: (torch.from_numpy(indices),))
        from_step = batches_of_views(training, 8, cpu)
        threads = threading.active_count()
        source = from_step(begin)
        first_batches = list(islice(source, 6))
        assert (threading.active_count() == threads) == (batches._CACHED > 0)
        return first_batches

    in_line = first(3)
    monkeypatch.setattr(batches, "_CACHED", 0)
    for one, other in zip(in_line, first(3), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.targets[0], other.targets[0])


def test_another_order_has_the_same_views_in_other_batches():
    rng = np.random.default_rng(0)
    images = Shard(rng.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8), np.arange(16), np.arange(16, dtype=np.uint64))
    views, cpu = Views(images, 0, Augment(shift=0.2, flip=True).model_dump()), torch.device("cpu")

    def epoch(order: int | None) -> list[bytes]:
        from_step = batches_of_views(TrainingViews(views, 1, lambda *_: (), order=order), 8, cpu)
        return [pixels.numpy().tobytes() for batch in islice(from_step(0), 2) for pixels in batch.pixels]

    assert epoch(None) == epoch(0)
    assert epoch(None) != epoch(7)
    assert sorted(epoch(None)) == sorted(epoch(7))
