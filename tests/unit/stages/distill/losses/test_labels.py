import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from reflux.components.stages.distill.losses.labels import hard_loss, labels_or_prediction, mixture, share_of_labels
from reflux.components.stages.distill.losses.logits import kd


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3


def test_hard_labels_count_only_where_there_are_some():
    student, labels = logits(0), torch.tensor([1, -1, 2, -1, -1, 0])
    known = labels >= 0
    loss = hard_loss(student, labels.clamp(min=0), share_of_labels(labels), 0.5)
    assert torch.allclose(loss.mean(), 0.5 * F.cross_entropy(student[known], labels[known]))
    one = torch.tensor([-1, -1, 2, -1, -1, -1])
    loss = hard_loss(student, one.clamp(min=0), share_of_labels(one), 1.0)
    assert torch.allclose(loss.mean(), F.cross_entropy(student[2:3], one[2:3]))
    assert not hard_loss(student, labels.clamp(min=0), share_of_labels(torch.full((6,), -1)), 0.5).any()


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), temperature=st.floats(0.5, 20), spread=st.floats(0.1, 100))
def test_a_mixture_is_that_of_the_softmaxes(seed: int, share: float, temperature: float, spread: float):
    own, partner = logits(seed).double() * spread, logits(seed + 1).double() * spread
    mixed = mixture(own, partner, torch.full((6,), share, dtype=torch.float64), temperature)
    wanted = share * F.softmax(own / temperature, 1) + (1 - share) * F.softmax(partner / temperature, 1)
    assert not mixed.isnan().any()
    assert torch.allclose(F.softmax(mixed / temperature, 1), wanted, atol=1e-9)
    assert torch.isfinite(kd(logits(seed + 2).double(), mixed, temperature)).all()


def test_probabilities_of_mixed_views_weigh_their_labels():
    student, labels = logits(0), torch.tensor([0, 1, 2, 3, 4, 0])
    known = torch.tensor([1.0, 1, 0, 1, 1, 1])
    share = torch.linspace(0, 1, 6)[:, None]
    one, two = F.one_hot(labels, 5).float(), F.one_hot(labels.flip(0), 5).float()
    mixed = hard_loss(student, share * one + (1 - share) * two, known, 0.5)
    losses = [hard_loss(student, each, known, 0.5) for each in (labels, labels.flip(0))]
    assert torch.allclose(mixed, share[:, 0] * losses[0] + (1 - share[:, 0]) * losses[1], atol=1e-5)


def test_an_image_without_a_label_counts_as_what_the_teacher_predicts():
    teacher = torch.tensor([[0.0, 5.0, 0.0], [9.0, 0.0, 0.0]])
    known = torch.tensor([0.0, 1.0])  # as it is where all images but one have a label
    assert labels_or_prediction(torch.tensor([0, 2]), known, teacher).tolist() == [1, 2]
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.4, 0.6]])
    assert labels_or_prediction(mixed.double(), known, teacher).dtype == torch.float64
    assert labels_or_prediction(mixed, known, teacher).tolist() == [[0.0, 1.0, 0.0], pytest.approx([0.0, 0.4, 0.6])]
