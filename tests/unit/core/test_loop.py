from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from components.core.errors import UserError
from components.core.loop import Batch, fit, validate
from components.core.models import load, pixel_model
from components.core.shards import Shard
from components.core.views import batch, plain

CPU = torch.device("cpu")


def shard(count: int, seed: int) -> Shard:
    """Bright and dark images, so that a few steps are enough to tell them apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 12, 12, 1)) + 120 * labels[:, None, None, None]
    return Shard(images.astype(np.uint8), labels.astype(np.int64), rng.integers(0, 2**63, count, np.uint64))


def train(
    tmp_path: Path,
    steps: int = 30,
    lr: float = 0.01,
    ema_decay: float = 0.0,
    optimizer: str = "adamw",
    loss=cross_entropy,
):
    torch.manual_seed(0)
    model = pixel_model("resnet8_slim", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    data, val = shard(64, 1), shard(40, 2)
    labels = torch.from_numpy(data.labels)

    def batch_at(step: int) -> Batch:
        indices, _ = batch(0, step, len(data), 16)
        return Batch(plain(data.images[indices], CPU), (labels[indices],))

    seen: list[int] = []
    history = fit(
        model, batch_at, loss, val,
        groups=[{"params": list(model.parameters())}], optimizer=optimizer, lr=lr, weight_decay=0.0, warmup=0.1,
        steps=steps, eval_every=10, ema_decay=ema_decay, device=CPU, checkpoint=tmp_path / "best.safetensors",
        report=lambda row: None, advance=lambda count, **_facts: seen.append(count),
    )  # fmt: skip
    return model, history, val, sum(seen)


@pytest.mark.parametrize(("optimizer", "ema_decay"), [("adamw", 0.0), ("sgd", 0.0), ("adamw", 0.8)])
def test_it_learns_and_keeps_the_best_weights(tmp_path: Path, optimizer: str, ema_decay: float):
    model, history, val, images = train(tmp_path, optimizer=optimizer, ema_decay=ema_decay)
    assert [row["step"] for row in history] == [10, 20, 30]
    assert images == 30 * 16
    assert max(row["val_accuracy"] for row in history) > 0.9
    assert not model.training
    kept = validate(load(tmp_path / "best.safetensors"), val, CPU)
    assert validate(model, val, CPU) == kept
    assert kept[1] in [pytest.approx(row["val_accuracy"]) for row in history]


def test_the_latest_weights_within_one_standard_error_of_the_best_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Best 0.9 of 40 images, standard error 0.047: 0.87 later is as good, 0.80 at the end is not."""
    measured = iter([(0.5, 0.6), (0.4, 0.9), (0.4, 0.87), (0.4, 0.8)])
    weights: list[torch.Tensor] = []

    def scripted(judged, _val, _device):
        weights.append(judged.net.head.weight.detach().clone())
        return next(measured)

    monkeypatch.setattr("components.core.loop.validate", scripted)
    model = train(tmp_path, steps=40)[0]
    assert torch.equal(model.net.head.weight, weights[2])


def test_the_same_run_twice_is_the_same_to_the_bit(tmp_path: Path):
    first, second = train(tmp_path / "a")[0], train(tmp_path / "b")[0]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_learning_rate_rises_and_falls_to_nothing(tmp_path: Path):
    history = train(tmp_path)[1]
    rates = [row["lr"] for row in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path):
    calls = 0

    def breaks_at_14(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return cross_entropy(logits, labels) * (float("nan") if calls == 14 else 1.0)

    with pytest.raises(UserError, match=r"not finite at step 14: .* is .*best.safetensors"):
        train(tmp_path, loss=breaks_at_14)
    kept = load(tmp_path / "best.safetensors")
    assert all(t.isfinite().all() for t in kept.state_dict().values())


def test_before_any_checkpoint_the_sentence_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"at step 1: .*no checkpoint was good enough"):
        train(tmp_path, loss=lambda logits, labels: cross_entropy(logits, labels) * float("inf"))
