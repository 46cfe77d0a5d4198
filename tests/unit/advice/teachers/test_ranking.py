from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score

from reflux.components.advice.teachers.candidates import Candidate
from reflux.components.advice.teachers.ranking import (
    Cost,
    affordable,
    parameters_of,
    rank,
    recalls,
    row,
    sample,
    sizes_of,
)
from reflux.components.advice.teachers.result import cheapest_as_good, read, write
from reflux.components.core.data.shards import UNLABELED, Shard
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import parameter_count, pixel_model, save

CLASSES = ("dark", "bright")
CANDIDATE = Candidate("one", "resnet8", "one.safetensors", Path("one.safetensors"))


def test_fewer_images_go_before_fewer_networks():
    costs = {"slow": 0.3, "quick": 0.1}
    assert affordable(costs, 1000, 4000.0) == (["quick", "slow"], 1000)
    assert affordable(costs, 1000, 200.0) == (["quick", "slow"], 500)
    assert affordable(costs, 1000, 100.0) == (["quick"], 1000)
    assert affordable(costs, 1000, 1.0) == (["quick"], 300)
    assert affordable(costs, 50, 1.0) == (["quick"], 50)


def test_the_sample_is_of_labeled_images_in_an_order_that_their_hashes_made():
    ids = np.random.default_rng(0).permutation(60).astype(np.uint64)
    labels = np.where(ids < 50, ids.astype(np.int64) % 2, UNLABELED)
    images = np.broadcast_to(ids.astype(np.uint8)[:, None, None, None], (60, 4, 4, 1))
    pixels, chosen = sample(Shard(images, labels, ids))
    assert pixels[:, 0, 0, 0].tolist() == list(range(50))
    assert chosen.tolist() == [number % 2 for number in range(50)]
    assert sample(Shard(images, labels, ids), most=45)[0][:, 0, 0, 0].tolist() == list(range(45))
    with pytest.raises(UserError, match="There are 39 labeled images"):
        sample(Shard(images[:39], np.zeros(39, np.int64), ids[:39]))


def test_recalls_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    expected = recall_score(labels, guesses, average=None)
    assert recalls(guesses == labels, labels, 4) == pytest.approx((*expected, None))


def test_parameters_are_those_of_the_network_with_this_head():
    assert parameters_of("test_vit", 7) == parameter_count(
        pixel_model("test_vit", [str(number) for number in range(7)], 160, 3, (0.5,) * 3, (0.2,) * 3)
    )


def test_a_network_of_one_size_is_asked_at_that_one():
    assert sizes_of(Candidate("test_vit", "test_vit", "timm", Path("x")), (80, 128)) == [160]
    assert sizes_of(Candidate("test_resnet", "test_resnet", "timm", Path("x")), (80, 128)) == [80, 128]
    assert sizes_of(CANDIDATE, (16,)) == [16]


def answers(right: int, n: int = 200) -> np.ndarray:
    return np.arange(n) < right


def test_the_cheapest_that_is_not_clearly_worse():
    labels, best = np.arange(200) % 2, answers(160)
    rows = [
        row(CANDIDATE, size, answers(right), labels, best, Cost(0.001, seconds), CLASSES)
        for size, right, seconds in ((224, 160, 900.0), (128, 159, 300.0), (80, 120, 100.0))
    ]
    assert cheapest_as_good(rows).image_size == 128
    assert cheapest_as_good(rows[2:]).image_size == 80, "of rows that are all worse, the best"
    assert rows[0].low < 0.8 < rows[0].high
    assert rows[0].p_value == 1
    assert rows[2].p_value < 1e-6


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ranks a network at two sizes on images of two classes, and says how many images it computed."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(pixel_model("resnet8", ("a", "b"), 16, 3, (0.5,) * 3, (0.2,) * 3), CANDIDATE.file)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    pixels = (rng.integers(0, 60, (60, 12, 12, 1)) + 120 * labels[:, None, None, None]).astype(np.uint8)

    def ask(minutes: float = 10.0, cost: float = 0.001):
        timed = {(CANDIDATE, 24): Cost(2 * cost, 50.0), (CANDIDATE, 16): Cost(cost, 40.0)}
        device = torch.device("cpu")
        return rank(timed, pixels, labels, CLASSES, minutes, device, ["before"], lambda _: lambda _: None)

    return ask


def test_dark_and_bright_are_told_apart_and_a_second_call_computes_nothing(asked):
    ranking = asked()
    assert [each.accuracy for each in ranking.rows] == [1.0, 1.0]
    assert [each.image_size for each in ranking.rows] == [16, 24], "of equal ones the cheaper is first"
    assert (ranking.images, ranking.computed, ranking.left_out) == (60, 120, ("before",))
    assert asked().computed == 0
    write(ranking)
    assert read() == ranking


def test_what_takes_too_long_is_left_out_and_said(asked):
    ranking = asked(minutes=0.01, cost=0.01)
    assert [each.image_size for each in ranking.rows] == [16]
    assert ranking.left_out == ("before", "one at 24 pixels: it takes too long")
