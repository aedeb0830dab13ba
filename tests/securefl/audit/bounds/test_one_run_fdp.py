from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from securefl.audit.bounds import one_run, one_run_fdp
from securefl.audit.bounds.families import Gaussians, SampledGaussians
from securefl.audit.bounds.scores import Guesses
from tests.securefl.audit.bounds.synthetic import DELTA, gaussian, most_alarms, sampled

SHIFT = math.sqrt(60) / 4


@pytest.mark.parametrize("guesses", [Guesses(20, 20), Guesses(100, 100)])
def test_a_gaussian_is_accused_no_more_often_than_the_level_says(guesses: Guesses) -> None:
    # False-alarm rate of this test: 1e-6 over the choice of seeds.
    runs, level, truth = 200, 0.1, Gaussians().epsilon(1.0, DELTA)
    seen = (gaussian(seed, 1.0, canaries=200) for seed in range(runs))
    alarms = sum(one_run_fdp.lower_bound(*one, DELTA, 1 - level, guesses=(guesses,)).epsilon > truth for one in seen)
    assert alarms <= most_alarms(runs, level)


def test_sampled_gaussians_are_accused_no_more_often_than_the_level_says() -> None:
    # By the scores that tell best. False-alarm rate of this test: 1e-6 over the choice of seeds.
    runs, level, canaries, curve = 200, 0.1, 100, SampledGaussians(0.1, 60).tradeoff(1.0)
    alarms = 0
    for seed in range(runs):
        seen = sampled(seed, 1.0, 0.1, canaries)
        told = np.log(0.9 + 0.1 * np.exp(seen.scores - 0.5)).sum(axis=1)
        right = one_run_fdp.correct(told, seen.included, Guesses(15, 15))
        alarms += one_run_fdp.refutes(curve, canaries, 30, right, level)
    assert alarms <= most_alarms(runs, level)


def response(false_positives: float) -> float:
    """The trade-off function of randomised response with epsilon 1."""
    return max(0.0, 1 - math.e * false_positives, (1 - false_positives) / math.e)


def test_randomised_response_is_refuted_by_no_more_right_guesses_than_chance_explains() -> None:
    # All are guessed as told, and right ones are binomial: the exact p-value may not be above a level that refutes.
    for right in range(60, 101):
        for level in (0.3, 0.1, 0.01):
            if one_run_fdp.refutes(response, 100, 100, right, level):
                assert binom.sf(right - 1, 100, expit(1.0)) <= level


def test_it_is_not_powerless_against_randomised_response() -> None:
    right = next(right for right in range(101) if one_run_fdp.refutes(response, 100, 100, right, 0.01))
    exact = int(binom.isf(0.01, 100, expit(1.0))) + 1
    assert exact <= right <= exact + 3


@given(st.integers(2, 200), st.data(), st.floats(0.01, 5), st.floats(1e-4, 0.3))
def test_what_refutes_a_curve_is_refuted_by_more_right_guesses_and_refutes_lesser_leaks(
    canaries: int, data: st.DataObject, shift: float, level: float
) -> None:
    guesses = data.draw(st.integers(1, canaries))
    right = data.draw(st.integers(0, guesses))
    curve, lesser = Gaussians().tradeoff(shift), Gaussians().tradeoff(shift / 2)
    if one_run_fdp.refutes(curve, canaries, guesses, right, level):
        assert one_run_fdp.refutes(curve, canaries, guesses, min(right + 1, guesses), level)
        assert one_run_fdp.refutes(lesser, canaries, guesses, right, level)


def test_the_bound_is_as_tight_as_was_published_and_tighter_than_one_run() -> None:
    seen = [gaussian(seed, SHIFT) for seed in range(40)]
    found = [one_run_fdp.lower_bound(*one, DELTA).epsilon for one in seen]
    # 4.44 was found in one real run of DP-SGD; the spread of one run is 0.9.
    assert 3.9 < float(np.median(found)) < 5.2
    assert all(more > one_run.lower_bound(*one, DELTA).epsilon for more, one in zip(found, seen, strict=True))


def test_the_family_may_be_of_sampled_gaussians() -> None:
    seen = sampled(2, 1.0, 0.1)
    told = np.log(0.9 + 0.1 * np.exp(seen.scores - 0.5)).sum(axis=1)
    family = SampledGaussians(0.1, 60)
    bound = one_run_fdp.lower_bound(told, seen.included, DELTA, family=family)
    assert 0.5 < bound.epsilon < 5.57
    assert "60 Poisson-sampled Gaussians at rate 0.1" in bound.assumes


def test_several_numbers_of_guesses_share_the_level() -> None:
    seen = gaussian(1, SHIFT)
    one, other = Guesses(100, 100), Guesses(50, 50)
    both = one_run_fdp.lower_bound(*seen, DELTA, 0.99, guesses=(one, other)).epsilon
    halves = [one_run_fdp.lower_bound(*seen, DELTA, 0.995, guesses=(guesses,)).epsilon for guesses in (one, other)]
    assert both == pytest.approx(max(halves), rel=1e-4)
