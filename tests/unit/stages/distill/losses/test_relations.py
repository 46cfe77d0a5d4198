from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reflux.components.stages.distill.losses.relations import rkd, rkd_angle, rkd_distance

EACH = {"distance": rkd_distance, "angle": rkd_angle}
each = pytest.mark.parametrize("loss", EACH.values(), ids=EACH)
Loss = Callable[[Tensor, Tensor], Tensor]


def embeddings(seed: int, rows: int = 6, dim: int = 4) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_by_hand():
    """Three on a line at 0, 1 and 3, and at 0, 1 and 2: distances (1, 3, 2) / 2 and (1, 2, 1) / (4/3), Huber's d²/2."""
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    expected = 2 * (0.25**2 + 0 + 0.25**2) / 2 / 9
    assert rkd_distance(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_angles_by_hand():
    """A right angle with legs of 1, and three on a line: at each corner the cosine changes, in either direction."""
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    half = 0.5**0.5
    changes = [0 - 1, half - (-1), half - 1]  # at the first, second and third
    huber = [change**2 / 2 if abs(change) < 1 else abs(change) - 0.5 for change in changes]
    assert rkd_angle(student, teacher).item() == pytest.approx(2 * sum(huber) / 27, rel=1e-6)


@pytest.mark.parametrize(("distance", "angle"), [(25.0, 50.0), (25.0, 0.0), (0.0, 50.0), (0.0, 0.0)])
def test_distances_and_angles_count_with_their_weights(distance: float, angle: float):
    pair = embeddings(0), embeddings(1)
    expected = distance * rkd_distance(*pair) + angle * rkd_angle(*pair)
    assert rkd(*pair, distance, angle).item() == pytest.approx(expected.item(), rel=1e-12)


@each
@pytest.mark.parametrize("seed", range(5))
def test_zero_at_equality_with_no_gradient_and_positive_elsewhere(loss: Loss, seed: int):
    student = embeddings(seed).requires_grad_()
    value = loss(student, embeddings(seed))
    value.backward()
    assert value.item() == 0
    assert not student.grad.any()
    assert loss(embeddings(seed + 1), embeddings(seed)).item() > 1e-6


@each
@pytest.mark.parametrize("seed", range(5))
def test_turning_moving_and_scaling_an_embedding_changes_nothing(loss: Loss, seed: int):
    student, teacher = embeddings(seed), embeddings(seed + 1, dim=9)
    turn, _ = torch.linalg.qr(embeddings(seed + 2, rows=4))
    assert torch.allclose(loss(5 * student @ turn + embeddings(3, rows=1), teacher), loss(student, teacher))


@each
def test_the_gradient_is_that_of_the_values(loss: Loss):
    assert torch.autograd.gradcheck(lambda student: loss(student, embeddings(1)), embeddings(0).requires_grad_())


@each
def test_images_in_one_place_give_a_finite_value_and_gradient(loss: Loss):
    """Two views of an image, or units that are all dead: where there is no distance there is no direction."""
    for together in (2, 6):
        student = embeddings(0).float()
        student[:together] = student[0].clone()
        student.requires_grad_()
        value = loss(student, embeddings(1).float())
        value.backward()
        assert value.isfinite()
        assert student.grad.abs().max() < 1e3


@each
def test_near_images_far_from_the_origin_keep_their_distances(loss: Loss):
    """|a|² + |b|² - 2 a·b has no digit left of them in single precision."""
    near, far = embeddings(0, rows=40), torch.full((1, 4), 1e3)
    moved = (near + far).float()
    assert loss(moved, moved.double() - far).item() < 1e-6


@each
def test_single_precision_under_autocast_and_of_halves(loss: Loss):
    student, teacher = embeddings(0).float(), embeddings(1).float()
    plain = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher), plain)
        assert loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32
