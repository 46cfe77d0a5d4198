import contextlib
import itertools
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from timm.layers import freeze_batch_norm_2d

from reflux.components.core.data.draws import batch_indices
from reflux.components.core.data.shards import Shard
from reflux.components.core.errors import UserError
from reflux.components.core.inference import validate
from reflux.components.core.params.training import Training
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.training import loop, optim
from reflux.components.core.training.loop import Batch, Objective, Recipe, Session, Setup, cross_entropy, fit
from reflux.components.core.training.state import KEPT_WITHIN, standard_error
from reflux.components.modalities.image.models.pixel_model import pixel_model
from reflux.components.modalities.image.views.augment import to_pixels
from tests.workspaces import ROOT

CPU = torch.device("cpu")


def shard(count: int, seed: int) -> Shard:
    """Bright and dark images, so that a few steps are enough to tell them apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 12, 12, 1)) + 120 * labels[:, None, None, None]
    return Shard(images.astype(np.uint8), labels.astype(np.int64), rng.integers(0, 2**63, count, np.uint64))


def train(
    folder: Path,
    loss=cross_entropy,
    every_s: float = 1000.0,
    frozen: bool = False,
    with_train_split: bool = False,
    warmups=None,
    at_rest=None,
    **settings,
):
    recipe = Recipe.of({"steps": 30, "eval_every": 10, "batch_size": 16, "lr": 0.01}, **settings)
    torch.manual_seed(0)
    model = pixel_model("resnet8_slim", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    if frozen:
        model.net = freeze_batch_norm_2d(model.net)
    data, val = shard(64, 1), shard(40, 2)
    labels = torch.from_numpy(data.labels)

    def batches(begin: int):
        for step in itertools.count(begin):
            indices, _ = batch_indices(0, step, len(data), 16)
            yield Batch(to_pixels(data.images[indices], CPU), (labels[indices],), 16)

    optimizer = optim.optimizer(
        [{"params": list(model.parameters())}], recipe.optimizer, recipe.lr, recipe.weight_decay
    )
    checkpoints = Checkpoints(folder, "0" * 64, every_s)
    rows, counts = [], []
    objective = Objective(loss, warmups or {}, at_rest and partial(at_rest, model))
    session = Session(checkpoints, rows.append, lambda count, **_facts: counts.append(count))
    train = data if with_train_split else None
    history = fit(model, optimizer, batches, objective, val, Setup(recipe, CPU), session, train)
    checkpoints.wait()
    assert rows == history
    return model, history, val, sum(counts)


def same(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_recipe_takes_every_setting_of_a_training_run_from_the_params():
    settings = {"batch_size": 7, "optimizer": "sgd", "lr": 0.3, "schedule": "step", "warmup": 0.2, "accumulate": 3}
    settings |= {
        "weight_decay": 0.01,
        "clip_norm": 2.0,
        "ema_decay": 0.5,
        "precision": "fp32",
        "sync_batch_norm": False,
    }
    recipe = Recipe.of(Training(**settings).model_dump(), steps=1, eval_every=1)
    assert settings == {name: getattr(recipe, name) for name in settings}
    assert {*settings, "augment", "balance"} == set(Training.model_fields)


def test_a_part_of_the_loss_rises_to_its_weight_over_its_share_of_the_steps_alone(tmp_path: Path):
    def loss(logits, labels):
        return cross_entropy(logits, labels) | {"part": torch.ones(len(logits)), "steady": torch.ones(len(logits))}

    _, history, _, _ = train(tmp_path, loss, eval_every=1, warmups={"part": 0.5}, steps=8)
    assert [row["train_part"] for row in history] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert {row["train_steady"] for row in history} == {1.0}
    assert all(row["train_loss"] == pytest.approx(row["train_ce"] + row["train_part"] + 1) for row in history)


@pytest.mark.parametrize(("optimizer", "ema_decay"), [("adamw", 0.0), ("sgd", 0.0), ("adamw", 0.8)])
def test_it_learns_and_keeps_the_best_weights(tmp_path: Path, optimizer: str, ema_decay: float):
    model, history, val, images = train(tmp_path, optimizer=optimizer, ema_decay=ema_decay)
    assert [row["step"] for row in history] == [10, 20, 30]
    assert images == 30 * 16
    assert max(row["val_accuracy"] for row in history) > 0.9
    assert not model.training
    assert validate(model, val, CPU)[1] in [pytest.approx(row["val_accuracy"]) for row in history]


def test_the_training_accuracy_is_reported_and_changes_nothing(tmp_path: Path):
    silent, without, _, _ = train(tmp_path / "without")
    model, history, _, _ = train(tmp_path / "with", with_train_split=True)
    assert same(silent, model)
    assert [row.pop("train_accuracy") for row in history][-1] == validate(model, shard(64, 1), CPU)[1]
    assert [(row["step"], row["val_accuracy"]) for row in history] == [(r["step"], r["val_accuracy"]) for r in without]


def test_the_latest_weights_within_two_standard_errors_of_the_best_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Best 0.9 of 40 images, standard error 0.052: 0.82 later is as good, 0.77 at the end is not."""
    measured = iter([(0.5, 0.6), (0.4, 0.9), (0.4, 0.82), (0.4, 0.77)])
    weights: list[torch.Tensor] = []

    def scripted(eval_model, *_):
        weights.append(eval_model.net.head.weight.detach().clone())
        return next(measured)

    monkeypatch.setattr("reflux.components.core.training.loop.validate", scripted)
    model = train(tmp_path, steps=40)[0]
    assert torch.equal(model.net.head.weight, weights[2])


@pytest.mark.parametrize(
    "page", ["params.yaml", "components/stages/finetune/README.md", "components/stages/pretrain/README.md"]
)
def test_what_is_said_of_the_kept_weights_is_the_number_in_the_code(page: str):
    said = re.findall(r"(?:latest|accuracy is) within\s(\w+)\sstandard\serrors", (ROOT / page).read_text("utf-8"))
    assert {{"two": 2}.get(word) for word in said} == {KEPT_WITHIN}


@pytest.mark.parametrize(("right", "n"), [(0, 25), (24, 25), (25, 25), (450, 500)])
def test_the_standard_error_is_that_of_agresti_and_coull(right, n):
    low, high = proportion_confint(right + 2, n + 4, alpha=0.05)
    assert standard_error(right / n, n) > 0
    if low > 0 and high < 1:
        assert standard_error(right / n, n) == pytest.approx((high - low) / 2 / stats.norm.ppf(0.975))


def test_the_same_run_twice_is_the_same_to_the_bit(tmp_path: Path):
    assert same(train(tmp_path / "a")[0], train(tmp_path / "b")[0])


def test_the_learning_rate_rises_and_falls_to_nothing(tmp_path: Path):
    history = train(tmp_path)[1]
    rates = [row["lr"] for row in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_micro_batches_take_the_same_step_as_the_whole_batch(tmp_path: Path):
    """With BatchNorm frozen, because its statistics are those of a micro-batch."""
    recipe = {"steps": 5, "frozen": True, "optimizer": "sgd"}
    whole, micro = train(tmp_path / "a", **recipe)[0], train(tmp_path / "b", accumulate=3, **recipe)[0]
    for a, b in zip(whole.parameters(), micro.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def two_parts(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-entropy, and a weight on the size of the logits."""
    return {"size": 0.1 * logits.square().mean(1), **cross_entropy(logits, labels)}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_history_has_the_parts_of_the_loss(tmp_path: Path, accumulate: int):
    history = train(tmp_path, loss=two_parts, accumulate=accumulate)[1]
    for row in history:
        assert row["train_loss"] == pytest.approx(row["train_size"] + row["train_ce"], rel=1e-5)
        assert 0 < row["train_size"] != row["train_ce"]


def test_clipping_bounds_the_gradient(tmp_path: Path):
    norms = []

    class Watched(torch.optim.SGD):
        def step(self, *_):
            gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
            norms.append(torch.stack(gradients).norm().item())
            super().step()

    weight = torch.nn.Linear(4, 2)
    one = Batch(torch.full((8, 4), 100.0), (torch.arange(8) % 2,), 8)
    recipe = Recipe(steps=1, eval_every=1, batch_size=8, lr=0.1, clip_norm=0.5)
    optimizer = Watched(weight.parameters(), lr=0.1)
    loop._step(weight, one, optimizer, Objective(cross_entropy), Setup(recipe, CPU), step=0)
    assert norms == [pytest.approx(0.5, rel=1e-3)]


def test_half_precision_learns_something_else_and_as_well(tmp_path: Path):
    single, half = train(tmp_path / "a")[0], train(tmp_path / "b", precision="bf16")
    assert not same(single, half[0])
    assert max(row["val_accuracy"] for row in half[1]) > 0.9


@pytest.mark.long
def test_without_a_compiler_a_compiled_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^The network can't be compiled \(.+\): install a C\+\+ compiler, or set"):
        train(tmp_path / "a", steps=10, compile=True)


class Killed(Exception):
    """Stands for what ends a process at a bad moment."""


@pytest.mark.parametrize(("ema_decay", "schedule"), [(0.0, "cosine"), (0.8, "one-cycle")])
@pytest.mark.parametrize("moment", [3, 10, 17, 29, 31])
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(
    tmp_path: Path, moment: int, ema_decay: float, schedule: str
):
    recipe = {"ema_decay": ema_decay, "schedule": schedule}
    whole, rows, *_ = train(tmp_path / "whole", loss=two_parts, **recipe)
    calls = 0

    def cut_off(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Killed
        return two_parts(logits, labels)

    with contextlib.suppress(Killed):  # at 31 it has ended, and only its files were not written yet
        train(tmp_path / "cut", loss=cut_off, every_s=0.0, **recipe)
    resumed, rows_again, *_, images = train(tmp_path / "cut", loss=two_parts, **recipe)
    assert same(whole, resumed)
    timeless = [
        [{k: v for k, v in row.items() if k not in ("images_per_s", "memory_mb")} for row in some]
        for some in (rows, rows_again)
    ]
    assert timeless[0] == timeless[1]
    assert images < 30 * 16


def trunk_until_step_12(model: torch.nn.Module, step: int) -> list[torch.nn.Parameter]:
    return list(model.net.trunk.parameters()) if step < 12 else []


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd"}, {"ema_decay": 0.8}, {"accumulate": 2}])
def test_frozen_parameters_are_not_trained_decayed_or_counted_in_the_gradient(tmp_path: Path, settings):
    recipe = {"weight_decay": 0.5, **settings}
    model, history, *_ = train(tmp_path / "frozen", steps=12, eval_every=12, at_rest=trunk_until_step_12, **recipe)
    torch.manual_seed(0)
    start = pixel_model("resnet8_slim", ("dark", "bright"), 12, 1, (0.5,), (0.25,))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start.get_parameter(name)) == ("trunk" in name), name
    gradients = [parameter.grad for parameter in model.parameters()]
    assert [each is None for each in gradients[-2:]] == [False, False]
    assert all(each is None for each in gradients[:-2])
    assert history[-1]["grad_norm"] == pytest.approx(torch.stack([g.norm() for g in gradients[-2:]]).norm().item())


@pytest.mark.parametrize("moment", [3, 12, 13, 17])
def test_an_interrupted_run_with_frozen_parameters_ends_with_the_same_weights_to_the_bit(tmp_path: Path, moment: int):
    recipe = {"weight_decay": 0.5, "at_rest": trunk_until_step_12, "steps": 20}
    whole = train(tmp_path / "whole", **recipe)[0]
    calls = itertools.count(1)

    def cut_off(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(calls) == moment:
            raise Killed
        return cross_entropy(logits, labels)

    with pytest.raises(Killed):
        train(tmp_path / "cut", loss=cut_off, every_s=0.0, **recipe)
    resumed, *_, images = train(tmp_path / "cut", **recipe)
    assert same(whole, resumed)
    assert images < 20 * 16
    assert not same(whole, train(tmp_path / "all", **(recipe | {"at_rest": None}))[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path):
    calls = 0

    def breaks_at_14(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        return {"ce": cross_entropy(logits, labels)["ce"] * (float("nan") if calls == 14 else 1.0)}

    with pytest.raises(UserError, match=r"not finite at step 14: .* the last good checkpoint is .*0000\.pt"):
        train(tmp_path, loss=breaks_at_14)
    kept = Checkpoints(tmp_path, "0" * 64, 1000).state
    assert kept["step"] == 10
    assert all(tensor.isfinite().all() for tensor in kept["states"]["model"].values())


def test_before_any_checkpoint_the_sentence_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"at step 1: .*no checkpoint was written yet"):
        train(tmp_path, loss=lambda logits, labels: {"ce": cross_entropy(logits, labels)["ce"] * float("inf")})
