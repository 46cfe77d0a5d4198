import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from components.distill.losses import mixture, share_of_labels, soft_label_loss, total_loss


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3


def test_one_image_by_hand():
    """Teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2)."""
    teacher = torch.log(torch.tensor([[0.75, 0.25]]))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_label_loss(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(expected, abs=1e-6)
    hot = soft_label_loss(torch.zeros(1, 2), teacher * 4, 4.0).item()
    assert hot == pytest.approx(16 * expected, abs=1e-5)


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_zero_at_equality_and_positive_elsewhere(seed: int, temperature: float):
    a, b = logits(seed), logits(seed + 1)
    assert soft_label_loss(a, a + 7, temperature).abs().max().item() == pytest.approx(0, abs=1e-4)
    assert soft_label_loss(a, b, temperature).min().item() > 0


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 8))
def test_doubling_the_batch_or_adding_impossible_classes_changes_nothing(seed: int, temperature: float):
    a, b = logits(seed), logits(seed + 1)
    once = soft_label_loss(a, b, temperature)
    assert torch.allclose(soft_label_loss(a.repeat(2, 1), b.repeat(2, 1), temperature).mean(), once.mean(), rtol=1e-4)
    impossible = torch.full((6, 5), -1e4)
    padded = soft_label_loss(torch.cat([a, impossible], 1), torch.cat([b, impossible], 1), temperature)
    assert torch.allclose(padded, once, rtol=1e-4)


def test_the_gradient_keeps_its_size_when_the_temperature_rises():
    """Hinton et al. 2015: at high T the gradient is (z_s - z_t) / K, T² having cancelled 1/T²."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    soft_label_loss(student, teacher, 1000.0).mean().backward()
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert torch.allclose(student.grad * 6, centred.detach() / 5, atol=2e-2)


def test_hard_labels_count_only_where_there_are_some():
    student, teacher = logits(0), logits(1)
    labels = torch.tensor([1, -1, 2, -1, -1, 0])
    known = labels >= 0
    total = total_loss(student, teacher, labels.clamp(min=0), share_of_labels(labels), 2.0, 0.5, 3.0).mean()
    soft = 3.0 * soft_label_loss(student, teacher, 2.0).mean()
    assert torch.allclose(total, soft + 0.5 * F.cross_entropy(student[known], labels[known]))
    nothing = share_of_labels(torch.full((6,), -1))
    assert torch.allclose(total_loss(student, teacher, labels.clamp(min=0), nothing, 2.0, 0.5, 3.0).mean(), soft)


def test_the_mean_is_torchs_batchmean():
    a, b = logits(0), logits(1)
    expected = F.kl_div(a.log_softmax(1), b.log_softmax(1), reduction="batchmean", log_target=True)
    assert torch.allclose(soft_label_loss(a, b, 1.0).mean(), expected)


def test_half_precision_logits_are_compared_in_single_precision():
    student, teacher = logits(0) * 20, logits(1) * 20
    halves = soft_label_loss(student.half(), teacher.half(), 1.0)
    assert halves.dtype == torch.float32
    assert torch.allclose(halves, soft_label_loss(student, teacher, 1.0), rtol=1e-2)


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), temperature=st.floats(0.5, 20), spread=st.floats(0.1, 100))
def test_a_mixture_is_that_of_the_softmaxes(seed: int, share: float, temperature: float, spread: float):
    own, partner = logits(seed).double() * spread, logits(seed + 1).double() * spread
    mixed = mixture(own, partner, torch.full((6,), share, dtype=torch.float64), temperature)
    wanted = share * F.softmax(own / temperature, 1) + (1 - share) * F.softmax(partner / temperature, 1)
    assert not mixed.isnan().any()
    assert torch.allclose(F.softmax(mixed / temperature, 1), wanted, atol=1e-9)
    assert torch.isfinite(soft_label_loss(logits(seed + 2).double(), mixed, temperature)).all()


def test_probabilities_of_mixed_views_weigh_their_labels():
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    known = torch.tensor([1.0, 1, 0, 1, 1, 1])
    share = torch.linspace(0, 1, 6)[:, None]
    one, two = F.one_hot(labels, 5).float(), F.one_hot(labels.flip(0), 5).float()
    mixed = total_loss(student, teacher, share * one + (1 - share) * two, known, 1.0, 0.5, 1.0)
    parts = [total_loss(student, teacher, each, known, 1.0, 0.5, 1.0) for each in (labels, labels.flip(0))]
    assert torch.allclose(mixed, share[:, 0] * parts[0] + (1 - share[:, 0]) * parts[1], atol=1e-5)
