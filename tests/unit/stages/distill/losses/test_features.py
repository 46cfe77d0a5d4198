from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reflux.components.stages.distill.losses.features import attention_transfer, fitnet, hcl, similarity_preserving, vkd

EACH = {"fitnet": fitnet, "attention": attention_transfer, "similarity": similarity_preserving, "hcl": hcl}
each = pytest.mark.parametrize("loss", EACH.values(), ids=EACH)
Loss = Callable[[Tensor, Tensor], Tensor]


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (6, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def test_fitnet_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    assert fitnet(student, teacher).tolist() == [2.5, 0.0]


def test_vkd_by_hand():
    """The teacher's features (1, 3) and (5, 5) are (-1, 1) and (0, 0) once standardized."""
    student, teacher = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert vkd(student, teacher).tolist() == pytest.approx([(1 + 4) / 2, 0.0], abs=1e-4)


def test_vkd_standardizes_a_channel_of_maps_over_images_and_pixels():
    student, teacher = maps(0), maps(1)
    moved = 3 * teacher + torch.arange(4.0)[:, None, None]
    assert torch.allclose(vkd(student, moved), vkd(student, teacher), atol=1e-3)
    channel = teacher[:, 1]
    standard = (channel - channel.mean()) / channel.std(correction=0)
    assert torch.allclose(
        vkd(student, teacher),
        vkd(student, teacher.clone().index_copy_(1, torch.tensor([1]), standard[:, None])),
        atol=1e-3,
    )


def test_attention_transfer_by_hand():
    """Two channels over two places: mean squares (5, 0) and (4.5, 4.5), at length 1 (1, 0) and (1, 1) / √2."""
    student = torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]]]])
    teacher = torch.tensor([[[[3.0, 0.0]], [[0.0, 3.0]]]])
    root = 0.5**0.5
    assert attention_transfer(student, teacher).item() == pytest.approx(((1 - root) ** 2 + root**2) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [fitnet, attention_transfer, hcl])
def test_each_image_has_a_value_of_its_own(loss: Loss):
    student, teacher = maps(0), maps(1)
    alone = torch.cat([loss(student[row : row + 1], teacher[row : row + 1]) for row in range(len(student))])
    assert torch.allclose(loss(student, teacher), alone, atol=1e-6)


def test_maps_that_are_not_square_are_pooled_side_by_side():
    student, teacher = maps(0, 2, 3, 4, 6), maps(1, 2, 3, 2, 3)
    pooled = student.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert torch.allclose(fitnet(student, teacher), fitnet(pooled, teacher), atol=1e-6)
    assert torch.allclose(fitnet(teacher, student), fitnet(teacher, pooled), atol=1e-6)


def test_similarity_preserving_by_hand():
    """Students alike in every way: rows (1, 1) / √2; teachers at right angles: the unit matrix."""
    value = similarity_preserving(torch.ones(2, 3), torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    assert value.item() == pytest.approx(2 * ((1 - 0.5**0.5) ** 2 + 0.5) / 4, rel=1e-6)


def test_hcl_by_hand():
    """A 2x2 map whose difference cancels in the mean: only the map itself counts, with 1 of the weights 1 and 1/2."""
    difference = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    assert hcl(difference, torch.zeros_like(difference)).item() == pytest.approx(1 / 1.5)
    assert hcl(difference.abs(), torch.zeros_like(difference)).item() == pytest.approx(1)
    vectors = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    assert hcl(*vectors).item() == pytest.approx(2.5)
    high = torch.tensor([[[[1.0], [-1.0]]]])  # two rows of one column: its mean is a coarser grid
    assert hcl(high, torch.zeros_like(high)).item() == pytest.approx(1 / 1.5)
    wide = high.mT  # one row: no grid is coarser
    assert hcl(wide, torch.zeros_like(wide)).item() == pytest.approx(1)


@each
@pytest.mark.parametrize("seed", range(5))
def test_zero_at_equality_with_no_gradient_and_positive_elsewhere(loss: Loss, seed: int):
    student = maps(seed).requires_grad_()
    value = loss(student, maps(seed))
    assert not value.any()
    value.sum().backward()
    assert not student.grad.any()
    assert loss(maps(seed + 1), maps(seed)).min() > 1e-6


@each
def test_the_gradient_is_that_of_the_values(loss: Loss):
    teacher = maps(1, 3, 2, 5, 5).double()
    assert torch.autograd.gradcheck(
        lambda student: loss(student, teacher), maps(0, 3, 2, 5, 5).double().requires_grad_()
    )


@pytest.mark.parametrize("loss", [fitnet, attention_transfer, hcl])
def test_doubling_the_batch_changes_nothing(loss: Loss):
    a, b = maps(0), maps(1)
    assert torch.allclose(loss(a.repeat(2, 1, 1, 1), b.repeat(2, 1, 1, 1)).mean(), loss(a, b).mean())


def test_similarity_preserving_falls_as_the_batch_grows():
    """The paper's rows have length 1 however many images they are of: its weight belongs to a size of batch."""
    a, b = maps(0), maps(1)
    doubled = similarity_preserving(a.repeat(2, 1, 1, 1), b.repeat(2, 1, 1, 1))
    assert torch.allclose(doubled, similarity_preserving(a, b) / 2)


@each
def test_single_precision_under_autocast_and_of_halves(loss: Loss):
    student, teacher = maps(0), maps(1)
    plain = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher), plain)
        assert loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


@each
def test_finite_with_its_gradient_for_dead_and_huge_features(loss: Loss):
    for size in (0.0, 1e4):
        student = (maps(0) * size).requires_grad_()
        value = loss(student, maps(1) * 1e4)
        value.sum().backward()
        assert value.isfinite().all()
        assert student.grad.isfinite().all()


def test_attention_and_similarity_see_neither_the_scale_nor_the_number_of_channels():
    student, teacher = maps(0), maps(1, 6, 16, 8, 8)
    assert torch.allclose(attention_transfer(3 * student, teacher), attention_transfer(student, teacher))
    assert torch.allclose(similarity_preserving(3 * student, teacher), similarity_preserving(student, teacher))


@pytest.mark.parametrize("loss", [fitnet, attention_transfer])
def test_the_larger_map_is_pooled_to_the_smaller(loss: Loss):
    coarse = maps(0, 6, 4, 4, 4)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert loss(fine, coarse).max() < 1e-12
    assert loss(coarse, fine).max() < 1e-12
