"""A second accountant, in Renyi differential privacy (RDP; Mironov, CSF 2017), that shares no code with the first.

Sampled Gaussians (Mironov, Talwar, Zhang, arXiv 1908.10530), Skellam sums (Agarwal, Kairouz, Liu, NeurIPS 2021), their
composition by addition, and the conversion to (epsilon, delta) (Canonne, Kamath, Steinke, NeurIPS 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from securefl.privacy.mechanism import Cost, SampledGaussian, SkellamSum

ORDERS = (*range(2, 65), 96, 128, 192, 256, 384, 512, 1024)
"""Whole numbers: the Skellam curve is proven for them only, and the sampled Gaussian's sum is finite."""

Curve = NDArray[np.float64]
"""The Renyi divergence at each of ``ORDERS``."""

_ALPHA = np.array(ORDERS, dtype=np.float64)


def epsilon(costs: Iterable[Cost], delta: float) -> float:
    """Epsilon at ``delta``, in (0, 1), of all ``costs`` composed: an upper bound, 0.0 of none."""
    total = np.zeros(len(ORDERS))
    for cost in costs:
        match cost:
            case SampledGaussian(noise, rate, count):
                total += count * gaussian_curve(noise, rate)
            case SkellamSum(l1, l2, variance, count):
                total += count * skellam_curve(l1, l2, variance)
    return converted(total, delta)


@lru_cache(maxsize=4096)
def gaussian_curve(noise_multiplier: float, sampling_rate: float) -> Curve:
    """The curve of one Poisson-sampled Gaussian, add-or-remove-one (Mironov et al. 2019, section 3.3; exact)."""
    half = 0.5 / noise_multiplier / noise_multiplier  # a square could overflow, which division does not
    if sampling_rate == 1:
        return _ALPHA * half
    return np.array([_log_moment(half, sampling_rate, order) / (order - 1) for order in ORDERS])


def skellam_curve(l1: float, l2: float, variance: float) -> Curve:
    """The curve of a sum of integers with these sensitivities under symmetric Skellam noise of ``variance``.

    Upper bound (Agarwal et al. 2021, corollary 3.6): the Gaussian's of that variance, and a term that vanishes with it.
    """
    if variance == 0:
        return np.full(len(ORDERS), np.inf)
    excess = np.minimum(((2 * _ALPHA - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return _ALPHA * l2**2 / (2 * variance) + excess


def converted(curve: Curve, delta: float) -> float:
    """The least epsilon at ``delta`` that ``curve`` proves (Canonne et al. 2020, proposition 12)."""
    # Total variation is at most sqrt(1 - exp(-KL)) (Bretagnolle and Huber 1979), and KL at most any of the divergences.
    if (-np.expm1(-curve) < delta**2).any():
        return 0.0
    proven = curve + np.log1p(-1 / _ALPHA) - np.log(delta * _ALPHA) / (_ALPHA - 1)
    return max(0.0, float(proven.min()))


def _log_moment(half: float, rate: float, order: int) -> float:
    """log of sum over k of C(order, k) (1 - rate)^(order - k) rate^k exp((k^2 - k) half), equation 5 of the paper.

    The same sum without the exponentials is 1, so that 1 + the sum with exp - 1 keeps what is far below rounding error.
    """
    k = np.arange(2, order + 1, dtype=np.float64)
    power = (k * k - k) * half
    logs = _log_binomials(order)[2:] + k * math.log(rate) + (order - k) * math.log1p(-rate)
    logs += power + np.log(-np.expm1(-power))  # log(exp(power) - 1), which does not overflow
    top = float(logs.max())
    if math.isinf(top):
        return math.inf
    return float(np.logaddexp(0, top + math.log(np.exp(logs - top).sum())))


@lru_cache(maxsize=len(ORDERS))
def _log_binomials(n: int) -> NDArray[np.float64]:
    """log C(n, k) for k = 0..n."""
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1.0, n + 1)))))
    return np.asarray(factorials[n] - factorials - factorials[::-1])
