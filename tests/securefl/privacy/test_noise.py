from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from securefl.privacy.noise import gaussian, poisson_sample

# Each statistical test below rejects a correct generator with probability FALSE_ALARM.
FALSE_ALARM = 1e-9


def test_gaussian_noise_follows_the_normal_distribution() -> None:
    sample = gaussian(200_001, 2.5)
    assert stats.kstest(sample / 2.5, "norm").pvalue > FALSE_ALARM


def test_gaussian_noise_has_the_deviation_asked_for() -> None:
    count, deviation = 100_000, 3.0
    squares = float(np.sum((gaussian(count, deviation) / deviation) ** 2))
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=count)
    assert low < squares < high


def test_the_two_halves_of_a_sample_are_uncorrelated() -> None:
    pairs = 100_000  # Box and Muller make both halves from the same bytes
    sample = gaussian(2 * pairs, 1.0)
    correlation = float(np.mean(sample[:pairs] * sample[pairs:]))
    assert abs(correlation) < stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(pairs)


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_extreme_bytes_give_finite_noise(filler: bytes) -> None:
    assert np.isfinite(gaussian(11, 1.0, lambda count: filler * count)).all()


@given(count=st.integers(0, 50))
def test_as_many_values_as_asked_for(count: int) -> None:
    assert gaussian(count, 1.0).shape == (count,)


def test_no_deviation_is_no_noise() -> None:
    assert not gaussian(5, 0.0).any()


@pytest.mark.parametrize("deviation", [-1.0, float("nan"), float("inf")])
def test_an_impossible_deviation_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        gaussian(3, deviation)


def test_a_sample_has_the_rate_asked_for() -> None:
    count, rate = 200_000, 0.3
    taken = len(poisson_sample(count, rate))
    assert stats.binomtest(taken, count, rate).pvalue > FALSE_ALARM


def test_every_record_is_sampled_independently() -> None:
    count, rate = 100_000, 0.5
    present = np.zeros(count)
    present[poisson_sample(count, rate)] = 1
    together = int((present[:-1:2] * present[1::2]).sum())
    assert stats.binomtest(together, count // 2, rate**2).pvalue > FALSE_ALARM


@given(count=st.integers(0, 300), rate=st.floats(0.01, 1))
def test_a_sample_is_sorted_and_without_repeats(count: int, rate: float) -> None:
    rows = poisson_sample(count, rate)
    assert (np.diff(rows) > 0).all()
    assert all(0 <= row < count for row in rows)


def test_rate_one_takes_everything() -> None:
    assert poisson_sample(1000, 1.0).tolist() == list(range(1000))
    assert len(poisson_sample(10, 1.0, lambda count: b"\xff" * count)) == 10


@pytest.mark.parametrize("rate", [0.0, 1.5, -0.1, float("nan")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        poisson_sample(3, rate)


@pytest.mark.parametrize("draw", [lambda r: gaussian(4, 1.0, r), lambda r: poisson_sample(4, 0.5, r)])
def test_a_random_source_that_runs_dry_is_an_error(draw: Callable[[Callable[[int], bytes]], object]) -> None:
    with pytest.raises(ValueError, match="random source"):
        draw(lambda count: os.urandom(count - 1))
