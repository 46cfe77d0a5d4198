"""Distances between the features of two domains: MK-MMD (Long et al. 2015) and CORAL (Sun and Saenko 2016)."""

import torch
from torch import Tensor

from reflux.components.core.precision import single_precision

_HALF_OCTAVES = 16  # DAN's bandwidths are from 2^-8 to 2^8 times the median, by factors of √2


@single_precision
def mk_mmd(source: Tensor, target: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of several Gaussian kernels, by its linear-time estimate: DAN's loss.

    ``2/N Σ_i k(s_2i-1, s_2i) + k(t_2i-1, t_2i) - k(s_2i-1, t_2i) - k(s_2i, t_2i-1)`` (equation 7), unbiased and so
    negative at times, with ``k(x, y) = mean_u exp(-‖x - y‖² / (2^u γ))``. γ is the median of the squared distances of
    this batch's pairs, without a gradient. The authors choose the kernels' weights by a quadratic program; here they
    are equal.

    Args:
        source: features [N, D].
        target: features [M, D]; of both as many count as the smaller has, one less if that is odd.

    Returns:
        [], 0 on average for images of one distribution.
    """
    even = min(len(source), len(target)) // 2 * 2
    (one, two), (three, four) = ((features[:even:2], features[1:even:2]) for features in (source, target))
    pairs = ((one, two), (three, four), (one, four), (two, three))
    squares = torch.stack([(left - right).square().sum(1) for left, right in pairs])
    median = squares.detach().median().clamp(min=torch.finfo(squares.dtype).eps)
    exponents = torch.arange(-_HALF_OCTAVES, _HALF_OCTAVES + 1, device=squares.device, dtype=squares.dtype) / 2
    kernels = torch.exp(-squares / (median * 2**exponents)[:, None, None]).mean(0)
    return (kernels[0] + kernels[1] - kernels[2] - kernels[3]).mean()


@single_precision
def coral(source: Tensor, target: Tensor) -> Tensor:
    """The squared distance of the covariances, ``‖C_S - C_T‖² / (4 D²)``: the loss of Deep CORAL (equation 1).

    Args:
        source: features [N, D] with N of 2 or more.
        target: features [M, D], likewise.

    Returns:
        [], 0 for equal covariances, whatever the means.
    """
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(features: Tensor) -> Tensor:
    centered = features - features.mean(0)
    return centered.T @ centered / (len(features) - 1)
