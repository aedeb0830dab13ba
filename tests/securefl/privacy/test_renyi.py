from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from securefl.privacy import renyi
from securefl.privacy.mechanism import Cost, SampledGaussian, SkellamSum
from securefl.privacy.renyi import ORDERS, converted, gaussian_curve, skellam_curve


def log_probabilities(variance: float, most: int) -> NDArray[np.float64]:
    """log P(k) for k = 0..most of a symmetric Skellam variable: exp(-variance) I_k(variance).

    Where P(k) is too small for a float: the ratio I_k / I_(k-1) from its continued fraction, which is stable downwards.
    """
    ratio, logs = 0.0, np.empty(most + 1)
    for k in range(most + 200 + int(variance), 0, -1):
        ratio = 1 / (2 * k / variance + ratio)
        if k <= most:
            logs[k] = math.log(ratio)
    logs[0] = math.log(special.ive(0, variance))
    return np.cumsum(logs)


def log_pair(variance: float, shift: int, order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log P and log Q of the noise shifted and not, on all integers where ``order`` gives them weight."""
    most = int(4 * (order + 1) * shift + 40 * math.sqrt(variance * (1 + order)) + 80 * math.sqrt(order * shift) + 50)
    logs, k = log_probabilities(variance, most + shift), np.arange(-most, most + 1)
    return logs[abs(k - shift)], logs[abs(k)]


def exact_divergence(variance: float, shift: int, order: int) -> float:
    shifted, centred = log_pair(variance, shift, order)
    terms = order * shifted - (order - 1) * centred
    assert max(terms[0], terms[-1]) < terms.max() - 40, "the sum was cut too early"
    return float(special.logsumexp(terms)) / (order - 1)


def bound(variance: float, differences: Sequence[int], order: int) -> float:
    l1, l2 = float(sum(differences)), math.sqrt(sum(d * d for d in differences))
    return float(skellam_curve(l1, l2, variance)[ORDERS.index(order)])


VARIANCES = (0.01, 0.3, 1, 2, 5, 20, 100, 1000, 10_000)
SHIFTS = (1, 2, 3, 8, 30)
FEW_ORDERS = (2, 3, 4, 7, 16, 32, 64)


def test_the_exact_divergence_is_computed_from_a_distribution_that_is_the_skellam() -> None:
    for variance in (0.3, 5, 1000):
        probabilities = np.exp(log_probabilities(variance, 400))
        assert 2 * probabilities.sum() - probabilities[0] == pytest.approx(1, abs=1e-12)
        known = stats.skellam.pmf(np.arange(30), variance / 2, variance / 2)
        assert probabilities[:30] == pytest.approx(known, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_skellam_bound_is_above_the_exact_divergence(variance: float) -> None:
    for shift, order in itertools.product(SHIFTS, FEW_ORDERS):
        assert exact_divergence(variance, shift, order) <= bound(variance, [shift], order) * (1 + 1e-9)


@pytest.mark.parametrize("variance", [20, 100, 1000, 10_000])
def test_the_skellam_bound_is_tight_where_the_noise_is_wide(variance: float) -> None:
    for shift, order in itertools.product(SHIFTS, FEW_ORDERS):
        if shift * order <= variance / 2:
            excess = 4 / variance + (shift * order / variance) ** 2 / 2
            assert bound(variance, [shift], order) <= exact_divergence(variance, shift, order) * (1 + excess)


@given(
    differences=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    variance=st.floats(0.5, 500),
    order=st.sampled_from([2, 3, 8, 20]),
)
@settings(max_examples=20, deadline=None)
def test_the_skellam_bound_holds_for_vectors(differences: list[int], variance: float, order: int) -> None:
    exact = sum(exact_divergence(variance, difference, order) for difference in differences)
    assert exact <= bound(variance, differences, order) * (1 + 1e-9)


@pytest.mark.parametrize(("variance", "shift"), [(1, 1), (4, 2), (100, 5), (400, 60), (2500, 100)])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_epsilon_of_a_skellam_sum_holds_exactly(variance: float, shift: int, delta: float) -> None:
    epsilon = renyi.epsilon([SkellamSum(shift, shift, variance, 1)], delta)
    shifted, centred = log_pair(variance, shift, 20)
    assert np.maximum(np.exp(shifted) - np.exp(epsilon + centred), 0).sum() <= delta


def test_the_skellam_curve_tends_to_that_of_the_gaussian_from_above() -> None:
    for noise in (0.3, 1.0, 10.0):
        for scale in (100.0, 1e4, 1e6):
            curve = skellam_curve(scale, scale, (noise * scale) ** 2)
            gaussian = gaussian_curve(noise, 1.0)
            assert (curve >= gaussian).all()
            assert (curve <= gaussian * (1 + 3 / scale)).all()


@given(noise=st.floats(0.3, 100), rate=st.floats(1e-4, 1))
@settings(max_examples=25, deadline=None)
def test_the_sampled_gaussian_has_the_curve_of_dp_accounting(noise: float, rate: float) -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    theirs = RdpAccountant(ORDERS)
    theirs.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)))
    assert gaussian_curve(noise, rate) == pytest.approx(theirs.rdp, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.01), (1000.0, 1e-4), (1e4, 1e-9)])
def test_a_divergence_far_below_rounding_error_is_kept(noise: float, rate: float) -> None:
    # At order 2 the sum is 1 + rate^2 (exp(1 / noise^2) - 1).
    exact = math.log1p(rate**2 * math.expm1(1 / noise**2))
    assert gaussian_curve(noise, rate)[ORDERS.index(2)] == pytest.approx(exact, rel=1e-12, abs=0)


def test_a_curve_of_hardly_any_noise_does_not_overflow() -> None:
    curve = gaussian_curve(0.01, 0.5)
    assert np.isfinite(curve).all()
    assert (np.diff(curve) > 0).all()


@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0, 30.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_the_conversion_is_above_the_exact_epsilon_of_a_gaussian_and_near_it(noise: float, delta: float) -> None:
    # Balle and Wang, ICML 2018, theorem 8: the exact delta of a Gaussian mechanism at an epsilon.
    def exact_delta(epsilon: float) -> float:
        there, back = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
        return float(stats.norm.cdf(there) - math.exp(epsilon + stats.norm.logcdf(back)))

    epsilon = converted(gaussian_curve(noise, 1.0), delta)
    assert exact_delta(epsilon) <= delta
    assert exact_delta(0.7 * epsilon) > delta


def test_a_divergence_smaller_than_delta_squared_is_epsilon_zero() -> None:
    assert converted(np.full(len(ORDERS), 0.9e-6), 1e-3) == 0.0
    assert converted(np.full(len(ORDERS), 1.1e-6), 1e-3) >= 0.0


def test_costs_add_up_whatever_their_order() -> None:
    costs: list[Cost] = [SampledGaussian(1.0, 0.05, 20), SkellamSum(100, 10, 900, 3), SampledGaussian(8.0, 1.0, 2)]
    together = renyi.epsilon(costs, 1e-5)
    assert together == pytest.approx(renyi.epsilon([costs[2], *costs[:2]], 1e-5), rel=1e-12)
    ones: list[Cost] = [SampledGaussian(1.0, 0.05, 1), SkellamSum(100, 10, 900, 1), SampledGaussian(8.0, 1.0, 1)]
    split = [one for one, count in zip(ones, (20, 3, 2), strict=True) for _ in range(count)]
    assert together == pytest.approx(renyi.epsilon(split, 1e-5), rel=1e-12)
    assert renyi.epsilon([], 1e-5) == 0.0
