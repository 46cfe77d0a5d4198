"""Discrepancies against independent computations in NumPy, image pair by image pair, and their gradients."""

import math

import numpy as np
import pytest
import torch

from reflux.components.stages.finetune.adaptation.discrepancies import coral, mk_mmd


def features(seed: int, count: int = 6, width: int = 3, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + shift


@pytest.mark.parametrize("count", [2, 6, 7])
def test_mk_mmd_is_the_linear_time_estimate_by_hand(count: int):
    source, target = features(0, count), features(1, count, shift=0.5)
    s, t = source.tolist(), target.tolist()
    quads = [(s[i], s[i + 1], t[i], t[i + 1]) for i in range(0, count - 1, 2)]
    squared = {
        (id(x), id(y)): math.dist(x, y) ** 2 for a, b, c, d in quads for x, y in ((a, b), (c, d), (a, d), (b, c))
    }
    gamma = sorted(squared.values())[(len(squared) - 1) // 2]

    def kernel(x: list[float], y: list[float]) -> float:
        return sum(math.exp(-(math.dist(x, y) ** 2) / (2 ** (u / 2) * gamma)) for u in range(-16, 17)) / 33

    terms = [kernel(a, b) + kernel(c, d) - kernel(a, d) - kernel(b, c) for a, b, c, d in quads]
    assert mk_mmd(source, target).item() == pytest.approx(sum(terms) / len(terms))


def test_mk_mmd_tells_domains_apart_and_is_about_0_for_one():
    apart = mk_mmd(features(0, 2000), features(1, 2000, shift=1.0))
    same = mk_mmd(features(0, 2000), features(1, 2000))
    assert apart > 0.05
    assert abs(same) < 0.02


def test_mk_mmd_of_features_that_are_all_equal_is_0_and_finite():
    equal = torch.ones(4, 3, requires_grad=True)
    loss = mk_mmd(equal, torch.ones(4, 3))
    loss.backward()
    assert loss.item() == 0
    assert bool(equal.grad.isfinite().all())


def test_coral_is_the_distance_of_numpys_covariances():
    source, target = features(0, 5), features(1, 8)
    difference = np.cov(source.numpy(), rowvar=False) - np.cov(target.numpy(), rowvar=False)
    assert coral(source, target).item() == pytest.approx(np.linalg.norm(difference, "fro") ** 2 / (4 * 3**2))
    assert coral(source, source + 3).item() == pytest.approx(0), "it knows no means"


def test_the_gradient_of_coral_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(coral, (features(0).requires_grad_(), features(1).requires_grad_()))


def test_the_gradient_of_mk_mmd_takes_the_median_for_a_constant():
    source, target = features(0).requires_grad_(), features(1)
    (gradient,) = torch.autograd.grad(mk_mmd(source, target), source)
    (again,) = torch.autograd.grad(_at_median_of(source, target), source)
    assert torch.allclose(gradient, again)


def _at_median_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    quads = [(source[i], source[i + 1], target[i], target[i + 1]) for i in range(0, len(source), 2)]
    squares = [(x - y) @ (x - y) for a, b, c, d in quads for x, y in ((a, b), (c, d), (a, d), (b, c))]
    gamma = sorted(square.item() for square in squares)[(len(squares) - 1) // 2]
    kernels = [sum(torch.exp(-square / (2 ** (u / 2) * gamma)) for u in range(-16, 17)) / 33 for square in squares]
    signs = (1, 1, -1, -1) * len(quads)
    return sum(sign * kernel for sign, kernel in zip(signs, kernels, strict=True)) / len(quads)
