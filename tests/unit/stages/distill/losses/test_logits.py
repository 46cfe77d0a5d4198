import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from reflux.components.stages.distill.losses.logits import (
    dist,
    dkd,
    kd,
    mse_logits,
    pseudo_labels,
    standardize,
    temperature_for,
    uncorrelated,
)

LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
SEEDS = st.integers(0, 1000)

# Each loss of logits, as a function of student and teacher alone
EACH = {
    "kd": partial(kd, temperature=4.0),
    "dkd": partial(dkd, labels=LABELS, temperature=4.0, alpha=1.0, beta=8.0),
    "dist": partial(dist, temperature=4.0, beta=1.0, gamma=1.0),
    "mse": mse_logits,
    "standardized kd": lambda s, t: kd(standardize(s), standardize(t), 2.0),
}


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_kd_of_one_image_by_hand():
    """Teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2)."""
    teacher = torch.log(torch.tensor([[0.75, 0.25]]))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert kd(torch.zeros(1, 2), teacher * 4, 4.0).item() == pytest.approx(16 * expected, abs=1e-5)


def test_dkd_of_one_image_by_hand():
    """Teacher (0.5, 0.3, 0.2), student (0.2, 0.2, 0.6), label 0: the parts are of (0.5, 0.5) and (0.6, 0.4)."""
    teacher, student = (torch.log(torch.tensor([p])) for p in ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6)))
    target, others = divergence([0.5, 0.5], [0.2, 0.8]), divergence([0.6, 0.4], [0.25, 0.75])
    value = dkd(student, teacher, torch.tensor([0]), 1.0, 2.0, 8.0)
    assert value.item() == pytest.approx(2 * target + 8 * others, rel=1e-5)


def test_dist_of_two_images_by_hand():
    """Two classes: rows correlate by +1 or -1; the columns' three images give the rest."""
    student, teacher = (torch.log(torch.tensor([[p, 1 - p] for p in ps])) for ps in ((0.9, 0.6, 0.3), (0.8, 0.4, 0.3)))
    inter = 1 - (1 - 1 + 1) / 3
    a, b = (torch.tensor(ps) - sum(ps) / 3 for ps in ((0.9, 0.6, 0.3), (0.8, 0.4, 0.3)))
    intra = 1 - ((a @ b) / (a.norm() * b.norm())).item()
    assert dist(student, teacher, 1.0, 1.0, 0.0).item() == pytest.approx(inter, abs=1e-5)
    assert dist(student, teacher, 1.0, 0.0, 3.0).item() == pytest.approx(3 * intra, abs=1e-5)


def test_pseudo_labels_are_the_cross_entropy_of_the_teachers_first_class_by_hand():
    student = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    teacher = torch.tensor([[1.0, 3.0, 2.0], [9.0, -1.0, 0.0]])
    assert pseudo_labels(student, teacher).tolist() == pytest.approx([-math.log(0.2), -math.log(0.7)], abs=1e-6)


def test_pseudo_labels_know_nothing_of_how_sure_the_teacher_is():
    student, teacher = logits(0), logits(1)
    value = pseudo_labels(student, teacher)
    assert torch.equal(pseudo_labels(student, 0.01 * teacher), value)
    assert not torch.allclose(kd(student, 0.01 * teacher, 1.0), kd(student, teacher, 1.0))


def test_mse_and_standardize_by_hand():
    assert mse_logits(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 0.0]])).item() == (9 + 4) / 4
    expected = torch.tensor([[-1.0, 0.0, 1.0]])  # (1, 3, 5): mean 3, deviation 2
    assert torch.allclose(standardize(torch.tensor([[1.0, 3.0, 5.0]])), expected, atol=1e-6)


@pytest.mark.parametrize("name", EACH)
@given(seed=SEEDS)
def test_zero_at_equality_with_no_gradient_and_positive_elsewhere(name: str, seed: int):
    student, teacher = logits(seed).double().requires_grad_(), logits(seed).double()
    loss = EACH[name](student, teacher)
    assert loss.abs().max().item() == pytest.approx(0, abs=1e-9)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient.abs().max().item() == pytest.approx(0, abs=1e-7)
    assert EACH[name](logits(seed + 1).double(), teacher).min().item() > 1e-6


@pytest.mark.parametrize("name", EACH)
def test_the_gradient_is_that_of_the_values(name: str):
    assert torch.autograd.gradcheck(
        lambda student: EACH[name](student, logits(1).double()), logits(0).double().requires_grad_()
    )


@pytest.mark.parametrize("name", ["kd", "dist", "standardized kd"])
@given(seed=SEEDS)
def test_a_constant_added_to_an_images_logits_changes_nothing(name: str, seed: int):
    student, teacher = logits(seed).double(), logits(seed + 1).double()
    assert torch.allclose(EACH[name](student + 7, teacher - 3), EACH[name](student, teacher))


@given(seed=SEEDS, temperature=st.floats(0.5, 8))
def test_doubling_the_batch_or_adding_impossible_classes_changes_nothing(seed: int, temperature: float):
    a, b = logits(seed), logits(seed + 1)
    once = kd(a, b, temperature)
    assert torch.allclose(kd(a.repeat(2, 1), b.repeat(2, 1), temperature).mean(), once.mean(), rtol=1e-4)
    impossible = torch.full((6, 5), -1e4)
    padded = kd(torch.cat([a, impossible], 1), torch.cat([b, impossible], 1), temperature)
    assert torch.allclose(padded, once, rtol=1e-4)


@given(seed=SEEDS)
def test_doubling_the_batch_leaves_dkd_and_dist(seed: int):
    a, b = logits(seed), logits(seed + 1)
    twice, twice_b = a.repeat(2, 1), b.repeat(2, 1)
    assert torch.allclose(dist(twice, twice_b, 2.0, 1.0, 1.0), dist(a, b, 2.0, 1.0, 1.0), rtol=1e-4)
    once = dkd(a, b, LABELS, 2.0, 1.0, 8.0).mean()
    assert torch.allclose(dkd(twice, twice_b, LABELS.repeat(2), 2.0, 1.0, 8.0).mean(), once, rtol=1e-4)


def test_the_mean_is_torchs_batchmean():
    a, b = logits(0), logits(1)
    expected = F.kl_div(a.log_softmax(1), b.log_softmax(1), reduction="batchmean", log_target=True)
    assert torch.allclose(kd(a, b, 1.0).mean(), expected)


@given(seed=SEEDS)
def test_kd_of_a_high_temperature_matches_centered_logits(seed: int):
    """Hinton et al. 2015, equation 4, in value and in gradient: mse_logits of centered logits."""
    student, teacher = logits(seed).double().requires_grad_(), logits(seed + 1).double()
    hot = kd(student, teacher, 1e4)
    centered = mse_logits(student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True))
    assert torch.allclose(hot, centered, rtol=1e-2)
    gradients = [torch.autograd.grad(loss.sum(), student, retain_graph=True)[0] for loss in (hot, centered)]
    assert torch.allclose(*gradients, atol=1e-2)


@given(seed=SEEDS, temperature=st.floats(0.5, 20))
def test_dkd_with_the_teachers_own_weight_of_the_others_is_kd(seed: int, temperature: float):
    """Zhao et al. 2022, equation 6: alpha 1 and beta 1 - p_y, image by image."""
    student, teacher = logits(seed).double(), logits(seed + 1).double()
    others = 1 - F.softmax(teacher / temperature, 1).gather(1, LABELS[:, None])[:, 0]
    parts = [dkd(student, teacher, LABELS, temperature, *weights) for weights in ((1.0, 0.0), (0.0, 1.0))]
    assert torch.allclose(parts[0] + others * parts[1], kd(student, teacher, temperature))


@given(seed=SEEDS)
def test_dkd_of_soft_labels_is_their_expectation(seed: int):
    student, teacher = logits(seed).double(), logits(seed + 1).double()
    with_classes = dkd(student, teacher, LABELS, 4.0, 1.0, 8.0)
    assert torch.allclose(dkd(student, teacher, F.one_hot(LABELS, 5).double(), 4.0, 1.0, 8.0), with_classes)
    q = F.softmax(logits(seed + 2).double(), 1)
    each = [dkd(student, teacher, torch.full((6,), c), 4.0, 1.0, 8.0) for c in range(5)]
    assert torch.allclose(dkd(student, teacher, q, 4.0, 1.0, 8.0), (q.T * torch.stack(each)).sum(0))


@given(seed=SEEDS)
def test_of_two_classes_dkd_is_alpha_times_kd(seed: int):
    student, teacher, labels = logits(seed, classes=2), logits(seed + 1, classes=2), LABELS % 2
    assert torch.allclose(dkd(student, teacher, labels, 4.0, 0.5, 8.0), 0.5 * kd(student, teacher, 4.0), atol=1e-5)


@given(seed=SEEDS, stretch=st.floats(0.05, 0.9))
def test_dist_is_left_by_a_positive_affine_map_of_the_students_probabilities(seed: int, stretch: float):
    """Towards the even distribution, p -> a p + (1 - a) / K; to KD it is something else."""
    student, teacher = (F.softmax(logits(s).double(), 1) for s in (seed, seed + 1))
    before, after, wanted = (torch.log(p) for p in (student, stretch * student + (1 - stretch) / 5, teacher))
    assert torch.allclose(dist(before, wanted, 1.0, 1.0, 1.0), dist(after, wanted, 1.0, 1.0, 1.0))
    assert not torch.allclose(kd(before, wanted, 1.0), kd(after, wanted, 1.0))


@given(seed=SEEDS)
def test_correlation_is_left_by_any_positive_affine_map_of_each_row(seed: int):
    one, other, scales = logits(seed).double(), logits(seed + 1).double(), logits(seed + 2).double().exp()
    mapped = scales[:, :1] * one + scales[:, 1:2]
    assert torch.allclose(uncorrelated(mapped, other), uncorrelated(one, other))
    assert torch.allclose(uncorrelated(-one, other), 2 - uncorrelated(one, other))


@given(seed=SEEDS, scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_standardized_logits_are_left_by_scale_and_shift(seed: int, scale: float, shift: float):
    plain = logits(seed).double()
    assert torch.allclose(standardize(plain * scale + shift), standardize(plain), atol=1e-5)


def test_each_image_is_standardized_by_itself():
    rows = logits(0) + torch.arange(6.0)[:, None] * 10
    assert torch.allclose(standardize(rows), torch.cat([standardize(row[None]) for row in rows]), atol=1e-5)
    assert torch.allclose(standardize(rows).mean(1), torch.zeros(6), atol=1e-5)


@pytest.mark.parametrize(("classes", "temperature"), [(3, 1.5774), (10, 1.2153), (100, 2.0), (1000, 2.0)])
def test_standardized_logits_of_few_classes_get_a_lower_temperature(classes: int, temperature: float):
    assert temperature_for(classes) == pytest.approx(temperature, abs=1e-4)
    sure = standardize(F.one_hot(torch.tensor([0]), classes).float())  # a teacher that is sure of one class
    sharpest = F.softmax(sure / temperature_for(classes), 1).max().item()
    assert sharpest == pytest.approx(0.6, abs=0.01) or classes > 100


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("size", [1e4, 1e-30])
def test_finite_with_its_gradient_at_extreme_logits(name: str, size: float):
    for seed in range(5):
        student = (logits(seed).sign() * size).requires_grad_()
        loss = EACH[name](student, -student.detach())
        assert loss.isfinite().all()
        loss.sum().backward()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in EACH if name != "dkd"])
def test_two_classes_are_finite(name: str):
    student = logits(0, classes=2).requires_grad_()
    loss = EACH[name](student, logits(1, classes=2))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", EACH)
def test_single_precision_under_autocast_and_of_halves(name: str):
    student, teacher = logits(0), logits(1)
    plain = EACH[name](student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(EACH[name](student, teacher), plain)
        halves = EACH[name](student.bfloat16(), teacher.bfloat16())
    assert halves.dtype == torch.float32
    assert torch.equal(halves, EACH[name](student.bfloat16().float(), teacher.bfloat16().float()))
