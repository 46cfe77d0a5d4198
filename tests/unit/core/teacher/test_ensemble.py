import pytest
import torch
from torch.nn import functional as F

from reflux.components.core.teacher.ensemble import average, confidence_weighted
from reflux.components.stages.distill.losses.logits import kd


def teachers(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_the_average_is_the_geometric_mean_of_the_teachers():
    logits = teachers(0)
    product = F.softmax(logits, 2).prod(0) ** (1 / 3)
    assert torch.allclose(F.softmax(average(logits), 1), product / product.sum(1, keepdim=True))


def test_two_teachers_by_hand():
    """Right with 0.8 and with 0.2: weights are (1 - (1/0.8) / (1/0.8 + 1/0.2)) = 0.8, and 0.2."""
    logits = torch.log(torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]]))
    mixed = F.softmax(confidence_weighted(logits, torch.tensor([0]), 1.0), 1)
    assert mixed.tolist()[0] == pytest.approx([0.8 * 0.8 + 0.2 * 0.2, 2 * 0.8 * 0.2], rel=1e-5)


def test_its_kd_is_the_papers_weighted_sum_less_a_constant():
    """In gradient: Zhang et al. 2022 sum the teachers' cross-entropies, weighted."""
    logits, student = teachers(0), teachers(5)[0].requires_grad_()
    wrong = torch.stack([F.cross_entropy(each, LABELS, reduction="none") for each in logits])
    weights = (1 - F.softmax(wrong, 0)) / 2
    summed = sum((w * kd(student, each, 4.0)).sum() for w, each in zip(weights, logits, strict=True))
    joined = kd(student, confidence_weighted(logits, LABELS, 4.0), 4.0).sum()
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (summed, joined)]
    assert torch.allclose(*gradients)


def test_one_hot_labels_are_labels():
    logits = teachers(0)
    assert torch.allclose(
        confidence_weighted(logits, F.one_hot(LABELS, 5).double(), 4.0), confidence_weighted(logits, LABELS, 4.0)
    )


def test_without_a_label_the_most_confident_teacher_counts_most():
    sure, unsure = torch.tensor([[8.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.1, 0.0]])
    mixed = F.softmax(confidence_weighted(torch.stack([sure, unsure]), torch.tensor([-1]), 1.0), 1)
    evenly = (F.softmax(sure, 1) + F.softmax(unsure, 1)) / 2
    assert mixed[0, 0] > evenly[0, 0] + 0.1


def test_one_teacher_is_itself_and_equal_ones_are_that_one():
    logits = teachers(0)
    assert torch.equal(confidence_weighted(logits[:1], LABELS, 4.0), logits[0])
    same = confidence_weighted(logits[:1].repeat(4, 1, 1), LABELS, 4.0)
    assert torch.allclose(F.softmax(same, 1), F.softmax(logits[0], 1))


def test_finite_at_extreme_logits():
    logits = teachers(0).sign().float() * 1e4
    for labels in (LABELS, torch.full((6,), -1)):
        assert kd(torch.zeros(6, 5), confidence_weighted(logits, labels, 1.0), 1.0).isfinite().all()
