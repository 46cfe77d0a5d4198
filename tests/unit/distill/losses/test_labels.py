import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from components.core.training.loop import total
from components.distill.losses import kd, mixture, share_of_labels, total_loss


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3


def test_hard_labels_count_only_where_there_are_some():
    student, teacher = logits(0), logits(1)
    labels = torch.tensor([1, -1, 2, -1, -1, 0])
    known = labels >= 0
    parts = total_loss(student, teacher, labels.clamp(min=0), share_of_labels(labels), 2.0, 0.5, 3.0)
    soft = 3.0 * kd(student, teacher, 2.0).mean()
    assert torch.allclose(total(parts).mean(), soft + 0.5 * F.cross_entropy(student[known], labels[known]))
    nothing = share_of_labels(torch.full((6,), -1))
    unlabelled = total_loss(student, teacher, labels.clamp(min=0), nothing, 2.0, 0.5, 3.0)
    assert torch.allclose(total(unlabelled).mean(), soft)


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), temperature=st.floats(0.5, 20), spread=st.floats(0.1, 100))
def test_a_mixture_is_that_of_the_softmaxes(seed: int, share: float, temperature: float, spread: float):
    own, partner = logits(seed).double() * spread, logits(seed + 1).double() * spread
    mixed = mixture(own, partner, torch.full((6,), share, dtype=torch.float64), temperature)
    wanted = share * F.softmax(own / temperature, 1) + (1 - share) * F.softmax(partner / temperature, 1)
    assert not mixed.isnan().any()
    assert torch.allclose(F.softmax(mixed / temperature, 1), wanted, atol=1e-9)
    assert torch.isfinite(kd(logits(seed + 2).double(), mixed, temperature)).all()


def test_probabilities_of_mixed_views_weigh_their_labels():
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    known = torch.tensor([1.0, 1, 0, 1, 1, 1])
    share = torch.linspace(0, 1, 6)[:, None]
    one, two = F.one_hot(labels, 5).float(), F.one_hot(labels.flip(0), 5).float()
    mixed = total(total_loss(student, teacher, share * one + (1 - share) * two, known, 1.0, 0.5, 1.0))
    parts = [total(total_loss(student, teacher, each, known, 1.0, 0.5, 1.0)) for each in (labels, labels.flip(0))]
    assert torch.allclose(mixed, share[:, 0] * parts[0] + (1 - share[:, 0]) * parts[1], atol=1e-5)
