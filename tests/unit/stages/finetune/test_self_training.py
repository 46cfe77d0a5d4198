"""Which labels of a teacher are used, against a search over all confidences and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reflux.components.core.data.shards import UNLABELED, Shard
from reflux.components.core.runtime.world import ALONE
from reflux.components.modalities.image.models.pixel_model import ModelSpec, PixelModel
from reflux.components.stages.finetune.self_training import (
    PseudoLabels,
    Round,
    choose,
    confidence_for,
    kept_round,
    labeled_by,
    sentence,
    with_pseudo_labels,
)


@given(images=st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30))
def test_the_confidence_is_the_one_whose_labels_are_worth_the_most(images):
    confidence, right = np.array([image[0] / 10 for image in images]), np.array([image[1] for image in images])

    def worth(least: float) -> float:
        taken = confidence >= least
        wrong = np.count_nonzero(taken & ~right) / taken.sum()
        return taken.sum() * max(0.0, 1 - 2 * wrong) ** 2

    least = confidence_for(confidence, right)
    best = max(worth(each) for each in confidence)
    assert worth(least) == pytest.approx(best) if best > 0 else least == np.inf


def test_labels_that_are_rarely_right_are_left_out():
    confidence, right = np.linspace(1, 0.1, 10), np.array([True] * 6 + [False] * 4)
    assert confidence_for(confidence, right) == pytest.approx(0.5)  # 6 > 7 (5/7)² = 3.6 > …


def test_each_class_gets_its_share_of_the_confident_images_the_most_confident_first():
    predicted = np.array([0, 0, 0, 1, 0, 1, 2, 0])
    confidence = np.array([0.9, 0.7, 0.8, 0.9, 0.95, 0.2, 0.9, 0.75])
    shares = np.array([0.5, 0.25, 0.25])
    # Seven are confident: at most four, two and two; of class 1 one is not confident.
    assert choose(predicted, confidence, 0.7, shares).tolist() == [0, 2, 3, 4, 6, 7]
    assert choose(predicted, confidence, np.inf, shares).tolist() == []


def brightness() -> PixelModel:
    """A network that is the surer of class 1 the brighter an image is, and of class 0 the darker."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[-4.0], [4.0]]))
        net[2].bias.zero_()
    return PixelModel(net, ModelSpec("resnet8", ("dark", "bright"), 4, 1, (0.5,), (0.25,)))


def grays(levels: list[int], labels: list[int]) -> Shard:
    images = np.repeat(np.array(levels, np.uint8), 16).reshape(-1, 4, 4, 1)
    return Shard(images, np.array(labels), np.arange(len(levels), dtype=np.uint64))


def test_a_teacher_labels_what_it_is_as_sure_of_as_of_validation_images_that_it_gets_right():
    val = grays([0, 20, 230, 250, 120, 135], [0, 0, 1, 1, 1, 0])  # the last two are wrong, and unsure
    unlabeled = grays([5, 125, 245, 10, 240, 130], [UNLABELED] * 6)
    pseudo = labeled_by(brightness(), unlabeled, val, np.array([0.5, 0.5]), torch.device("cpu"), ALONE)
    assert pseudo.rows.tolist() == [0, 2, 3, 4]
    assert pseudo.labels.tolist() == [0, 1, 0, 1]
    assert 0.5 < pseudo.confidence < 1


def test_labeled_images_come_first_and_keep_their_labels():
    train, unlabeled = grays([10, 20], [1, 0]), grays([30, 40, 50], [UNLABELED] * 3)
    images = with_pseudo_labels(train, unlabeled, PseudoLabels(np.array([0, 2]), np.array([1, 0]), 0.8))
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert images.images[:][:, 0, 0, 0].tolist() == [10, 20, 30, 50]
    assert images.images[np.array([3, 1])][:, 0, 0, 0].tolist() == [50, 20]
    assert images.ids.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.8], 1),
        ([0.8, 0.9, 0.88], 3),
        ([0.8, 0.9, 0.86], 2),
        ([0.9, 0.8, 0.8], 1),
        ([0.9, 0.9], 2),
        ([1.0, 0.99], 2),
        ([1.0, 0.98], 1),
    ],
)
def test_the_latest_round_within_one_standard_error_of_the_best_is_kept(accuracies: list[float], kept: int):
    """Of 100 images, an accuracy of 0.9 has a standard error of 0.03."""
    assert kept_round([Round(accuracy) for accuracy in accuracies], 100) == kept


def test_a_round_says_what_it_learned_from_and_what_it_gained():
    rounds = [Round(0.8), Round(0.82, 1200, 0.99761)]
    assert sentence(rounds[:1], 2000) == "round 1, on the labels: validation accuracy 80.00 %"
    assert sentence(rounds, 2000) == (
        "round 2, also on 1,200 of 2,000 unlabeled images, labeled by the last one with a confidence of at least "
        "0.9976: validation accuracy 82.00 % (+2.00 points)"
    )
