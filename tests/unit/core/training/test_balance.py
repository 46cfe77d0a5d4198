"""The orders and losses for classes of unequal size, against counts and hand computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.core.training.balance import (
    BalancedOrder,
    adjusted,
    class_shares,
    class_weights_for,
    log_priors_for,
    order_for,
)
from reflux.components.core.training.loop import cross_entropy

CPU = torch.device("cpu")
LABELS = np.array([0, 2, 0, -1, 0, 2, 0, 0, -1, 0, -1])  # six, none and two images of three classes, three without one


def visited(order: BalancedOrder, steps: int, batch_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    parts = [order(seed, step, batch_size) for step in range(steps)]
    indices, visits = (np.concatenate(side) for side in zip(*parts, strict=True))
    return indices, visits


def test_every_class_gets_as_many_places_and_an_unlabeled_image_one():
    epochs = 6
    indices, visits = visited(BalancedOrder(LABELS), epochs, 4 + 4 + 3)  # a batch is an epoch
    for epoch in indices.reshape(epochs, -1):
        labels = LABELS[epoch]
        assert [(labels == each).sum() for each in (0, 1, 2, -1)] == [4, 0, 4, 3]
        assert sorted(epoch[labels < 0]) == [3, 8, 10]
    count = np.bincount(indices, minlength=len(LABELS))
    assert set(count[LABELS == 0]) == {epochs * 4 // 6}
    assert set(count[LABELS == 2]) == {epochs * 4 // 2}
    assert set(visits[indices == 1]) == set(range(12))


@given(
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=30).filter(lambda labels: max(labels) >= 0),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_image_is_visited_twice_before_all_others_of_its_class_and_visits_are_counted(labels, batch_size, seed):
    """The number of a visit is that of a view: each of an image's views is seen once before any is seen again."""
    labels = np.array(labels)
    order = BalancedOrder(labels)
    steps = -(-4 * int(order._ends[-1]) // batch_size)
    indices, visits = visited(order, steps, batch_size, seed)
    whole = 4 * int(order._ends[-1])
    indices, visits = indices[:whole], visits[:whole]
    for image in set(indices.tolist()):
        assert sorted(visits[indices == image]) == list(range((indices == image).sum()))
    for label in set(labels.tolist()):
        of_class = np.bincount(indices, minlength=len(labels))[labels == label]
        assert of_class.max() - of_class.min() <= 1


def test_every_class_gets_the_share_of_the_labeled_places_that_it_is_to_have():
    shares = np.array([0.25, 0.0, 0.75])
    indices, visits = visited(BalancedOrder(LABELS, shares), 1, 8 + 3)
    assert [(LABELS[indices] == each).sum() for each in (0, 1, 2, -1)] == [2, 0, 6, 3]
    assert sorted(visits[indices == 1]) == [0, 1, 2], "another view at each visit"
    weights = class_weights_for("none", LABELS, 3, CPU, shares)
    assert (weights * torch.tensor([6.0, 0.0, 2.0]) / 8).tolist() == pytest.approx(shares.tolist())


def test_a_class_has_the_share_of_its_labels_and_with_sampling_an_equal_one():
    assert class_shares("none", LABELS, 3).tolist() == [0.75, 0, 0.25]
    assert class_shares("logit-adjustment", LABELS, 3).tolist() == [0.75, 0, 0.25]
    assert class_shares("sampling", LABELS, 3).tolist() == [0.5, 0, 0.5]


def test_the_order_is_a_function_of_seed_and_step():
    order = BalancedOrder(LABELS)
    whole = visited(order, 10, 6)
    assert np.array_equal(order(0, 7, 6)[0], whole[0][42:48])
    assert not np.array_equal(visited(order, 10, 6, seed=1)[0], whole[0])


def test_log_priors_are_the_shares_of_the_labeled_images_and_an_absent_class_counts_as_one():
    priors = log_priors_for("logit-adjustment", LABELS, 3, CPU)
    assert priors.exp().tolist() == pytest.approx([6 / 9, 1 / 9, 2 / 9])


def test_the_adjusted_loss_is_equation_10_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
    priors = log_priors_for("logit-adjustment", LABELS, 3, CPU)
    share = [6 / 9, 1 / 9, 2 / 9]
    own = cross_entropy(logits, torch.tensor([0, 2]), priors)["ce"]
    for loss, row, label in zip(own, logits.tolist(), (0, 2), strict=True):
        weighted = [pi * math.exp(logit) for pi, logit in zip(share, row, strict=True)]
        assert loss.item() == pytest.approx(-math.log(weighted[label] / sum(weighted)))
    mixed = torch.tensor([[0.75, 0.0, 0.25]])
    of_mix = cross_entropy(logits[:1], mixed, priors)["ce"].item()
    sides = cross_entropy(logits[[0, 0]], torch.tensor([0, 2]), priors)["ce"]
    assert of_mix == pytest.approx((0.75 * sides[0] + 0.25 * sides[1]).item())


def test_weights_make_a_loss_over_all_images_that_of_balanced_batches():
    weights = class_weights_for("sampling", LABELS, 3, CPU)
    assert [weights[label].item() for label in (0, 2)] == pytest.approx([8 / 2 / 6, 8 / 2 / 2])
    each = torch.linspace(0, 1, len(LABELS))
    whole = sum(weights[label] * each[i] for i, label in enumerate(LABELS) if label >= 0) / 8
    of_classes = [each[label == LABELS].mean() for label in (0, 2)]
    assert whole.item() == pytest.approx(sum(of_classes).item() / 2)


@pytest.mark.parametrize("balance", ["none", "sampling", "logit-adjustment"])
def test_only_what_is_asked_for_is_done(balance: str):
    torch.manual_seed(0)
    assert (order_for(balance, LABELS) is None) == (balance != "sampling")
    assert (class_weights_for(balance, LABELS, 3, CPU) is None) == (balance != "sampling")
    assert (log_priors_for(balance, LABELS, 3, CPU) is None) == (balance != "logit-adjustment")
    logits = torch.randn(2, 3)
    assert adjusted(logits, None) is logits
