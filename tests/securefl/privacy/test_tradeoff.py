from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from securefl.errors import BadInput
from securefl.privacy import accountant, tradeoff
from securefl.privacy.mechanism import DPSGD, SampledGaussian


@pytest.mark.parametrize(("noise", "rate", "steps"), [(4.0, 1.0, 60), (1.5, 0.2, 5)])
def test_the_lower_bound_is_just_below_what_the_accountant_says(noise: float, rate: float, steps: int) -> None:
    claim = accountant.epsilon([DPSGD(noise_multiplier=noise, sampling_rate=rate, steps=steps)], 1e-5)
    assert 0.99 * claim < tradeoff.least_epsilon(SampledGaussian(noise, rate, steps), 1e-5) < claim


def test_what_leaks_hardly_anything_has_no_lower_bound_above_zero() -> None:
    assert tradeoff.least_epsilon(SampledGaussian(1000.0, 0.1, 3), 1e-5) == 0


def test_what_hides_nothing_has_the_most_that_accountants_say() -> None:
    assert 600 < tradeoff.least_epsilon(SampledGaussian(0.1, 1.0, 60), 1e-5) <= 700


def test_a_delta_or_steps_that_no_accountant_takes_are_refused() -> None:
    with pytest.raises(BadInput, match="delta"):
        tradeoff.least_epsilon(SampledGaussian(1.0, 0.1, 1), 1e-13)
    with pytest.raises(BadInput, match="steps"):
        tradeoff.least_epsilon(SampledGaussian(1.0, 0.1, 200_001), 1e-5)


@pytest.mark.parametrize("steps", [1, 16])
def test_without_sampling_the_curve_is_a_gaussians_from_below(steps: int) -> None:
    curve, shift = tradeoff.curve(SampledGaussian(2.0, 1.0, steps)), math.sqrt(steps) / 2
    for rate in np.linspace(0.001, 0.999, 50):
        exact = float(norm.cdf(-norm.ppf(rate) - shift))
        assert exact - 0.01 < curve(float(rate)) <= exact + 1e-12


def test_no_test_of_one_sampled_step_lies_below_the_curve() -> None:
    curve, noise, rate = tradeoff.curve(SampledGaussian(0.5, 0.2, 1)), 0.5, 0.2
    for threshold in np.linspace(-1, 2, 31):
        out = float(norm.sf(threshold, scale=noise))
        missed = float((1 - rate) * norm.cdf(threshold, scale=noise) + rate * norm.cdf(threshold, 1, noise))
        assert curve(out) <= missed + 1e-12
        assert curve(missed) <= out + 1e-12


def test_the_curve_is_reached_by_the_likelihood_ratio_of_the_worse_way_round() -> None:
    # With one step a threshold on the score is that on the ratio, and the curve is what it reaches, made symmetric.
    curve, noise, rate = tradeoff.curve(SampledGaussian(0.5, 0.2, 1)), 0.5, 0.2
    above = [
        (1 - rate) * norm.cdf(threshold, scale=noise)
        + rate * norm.cdf(threshold, 1, noise)
        - curve(float(norm.sf(threshold, scale=noise)))
        for threshold in np.linspace(0.5, 2, 31)
    ]
    assert max(above) < 0.02
