from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from securefl.audit.bounds import gdp
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD


@pytest.mark.parametrize(("shift", "delta"), [(0.5, 1e-5), (1.0, 1e-3), (2.0, 1e-8)])
def test_epsilon_solves_the_closed_form(shift: float, delta: float) -> None:
    epsilon = gdp.epsilon(shift, delta)
    found = norm.cdf(shift / 2 - epsilon / shift) - math.exp(epsilon) * norm.cdf(-shift / 2 - epsilon / shift)
    assert found == pytest.approx(delta, rel=1e-6)


def test_it_agrees_with_the_accountant_on_what_sixty_steps_of_training_cost() -> None:
    claim = accountant.epsilon([DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=60)], 1e-5)
    assert gdp.epsilon(math.sqrt(60) / 4, 1e-5) == pytest.approx(claim, rel=1e-5)
    assert claim == pytest.approx(9.608, abs=1e-3)


@given(st.floats(1e-3, gdp.MOST_SHIFT), st.floats(1e-12, 0.5))
def test_epsilon_is_finite_and_grows_with_the_shift(shift: float, delta: float) -> None:
    assert 0 <= gdp.epsilon(shift, delta) <= gdp.epsilon(shift * 1.01, delta) < math.inf


def test_no_shift_costs_nothing_and_an_endless_one_everything() -> None:
    assert gdp.epsilon(0.0, 1e-5) == 0
    assert gdp.epsilon(1e-6, 1e-5) == 0  # delta alone covers it
    assert gdp.epsilon(math.inf, 1e-5) == math.inf


@given(st.floats(1e-3, 0.999), st.floats(0, 5))
def test_the_shift_of_two_error_rates_is_that_of_the_function_through_them(positives: float, shift: float) -> None:
    negatives = gdp.tradeoff(shift, positives)
    if negatives > 1e-12:
        assert gdp.shift(positives, negatives) == pytest.approx(shift, abs=1e-6)


def test_error_rates_at_the_ends() -> None:
    assert [gdp.tradeoff(1.0, rate) for rate in (0.0, 1.0)] == [1.0, 0.0]
    assert gdp.shift(0.5, 0.5) == 0
    assert gdp.shift(0.0, 0.5) == math.inf
