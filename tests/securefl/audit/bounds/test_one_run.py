from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from securefl.audit.bounds import one_run
from securefl.audit.bounds.scores import Guesses
from tests.securefl.audit.bounds.synthetic import DELTA, gaussian, least_alarms, most_alarms

SHIFT = math.sqrt(60) / 4  # 60 steps at sigma 4


def randomised_response(seed: int, epsilon: float, canaries: int) -> tuple[np.ndarray, np.ndarray]:
    """The mechanism that leaks the most of all epsilon-DP ones: each coin, told truly with e^eps / (1 + e^eps)."""
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    told = included ^ (rng.random(canaries) >= expit(epsilon))
    return np.where(told, 1.0, -1.0) + 1e-3 * rng.random(canaries), included


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_accused_no_more_often_than_the_level_says(epsilon: float) -> None:
    # False-alarm rate of this test: 1e-6 over the choice of seeds, on either side.
    runs, level, everyone = 200, 0.1, (Guesses(50, 50),)
    seen = [randomised_response(seed, epsilon, 100) for seed in range(runs)]
    alarms = sum(one_run.lower_bound(*one, 1e-12, 1 - level, everyone).epsilon > epsilon for one in seen)
    # All canaries are guessed by rank: where fewer than half were told to be in, some guesses go against what was told.
    assert alarms <= most_alarms(runs, level)
    assert alarms > 0


def test_with_one_guess_on_everything_told_the_level_is_reached_exactly() -> None:
    # Of the 40 highest of 100 nearly all were told to be in, so that right guesses are binomial: no bound is tighter.
    # False-alarm rate of this test: 1e-6 over the choice of seeds, on either side.
    runs, epsilon, right_at = 300, 1.0, int(binom.isf(0.1, 20, expit(1.0))) + 1
    level = float(binom.sf(right_at - 1, 20, expit(epsilon)))
    seen = [randomised_response(seed, epsilon, 100) for seed in range(runs)]
    alarms = sum(
        one_run.lower_bound(*one, 1e-12, 1 - level * (1 + 1e-6), (Guesses(10, 10),)).epsilon >= epsilon for one in seen
    )
    assert least_alarms(runs, level) <= alarms <= most_alarms(runs, level)


def test_delta_is_charged_for_what_it_can_reveal() -> None:
    # Told outright with probability delta for all, told nothing otherwise: (0, delta)-DP, so epsilon 0 must stand.
    canaries, delta, level = 10, 0.005, 0.05
    assert one_run.p_value(canaries, 10, 10, 0.0, delta) >= delta
    assert one_run.epsilon_of(canaries, 10, 10, delta, level) < one_run.epsilon_of(canaries, 10, 10, 1e-9, level)


def test_without_delta_the_p_value_is_a_binomial_tail() -> None:
    assert one_run.p_value(100, 60, 50, 1.5, 0.0) == pytest.approx(float(binom.sf(49, 60, expit(1.5))), rel=1e-12)


def test_with_delta_the_p_value_is_that_of_the_theorem() -> None:
    canaries, guesses, right, epsilon, delta = 500, 60, 50, 1.0, 1e-4
    hit = expit(epsilon)
    beyond = sum(binom.pmf(w, guesses, hit) for w in range(right, guesses + 1))
    fewer = max(sum(binom.pmf(w, guesses, hit) for w in range(right - i, right)) / i for i in range(1, right + 1))
    expected = beyond + 2 * canaries * delta * fewer
    assert one_run.p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(expected, rel=1e-9)


@given(
    st.integers(1, 300),
    st.data(),
    st.floats(0, 8),
    st.floats(0, 2),
    st.floats(1e-9, 1),
)
def test_the_p_value_grows_with_epsilon_and_falls_with_right_guesses(
    canaries: int, data: st.DataObject, epsilon: float, more: float, fraction: float
) -> None:
    guesses = data.draw(st.integers(1, canaries))
    right = data.draw(st.integers(1, guesses))
    delta = fraction / (2 * canaries)
    here = one_run.p_value(canaries, guesses, right, epsilon, delta)
    assert here <= one_run.p_value(canaries, guesses, right, epsilon + more, delta) + 1e-12
    assert here <= one_run.p_value(canaries, guesses, right - 1, epsilon, delta) + 1e-12


def test_the_bound_is_as_tight_as_was_published_for_sixty_unsampled_steps() -> None:
    found = [one_run.lower_bound(*gaussian(seed, SHIFT), DELTA).epsilon for seed in range(40)]
    # 2.93 was found in one real run of DP-SGD; the spread of one run is 0.5.
    assert 2.6 < float(np.median(found)) < 3.4


def test_several_numbers_of_guesses_share_the_level() -> None:
    seen = gaussian(1, SHIFT)
    one, other = Guesses(100, 100), Guesses(50, 50)
    both = one_run.lower_bound(*seen, DELTA, 0.99, (one, other)).epsilon
    halves = [one_run.lower_bound(*seen, DELTA, 0.995, (guesses,)).epsilon for guesses in (one, other)]
    assert both == pytest.approx(max(halves), rel=1e-5)


def test_too_many_canaries_for_delta_show_nothing() -> None:
    seen = gaussian(0, 10.0, canaries=100)  # all guesses are right
    assert one_run.lower_bound(*seen, 0.0051, 0.6).epsilon == 0
    assert one_run.lower_bound(*seen, 0.0049, 0.6).epsilon > 1
