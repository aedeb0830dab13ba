from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from protocols.base import Random
from protocols.encoding.quantise import LARGEST_WRAP_CHANCE, noise_tail, skellam_tail, stochastic_round, toss
from protocols.masking import expand
from protocols.ring import Ring

TRIALS = 200_000
# Coins are words of 32 bits: a value is rounded up by its fraction's share of them.
COINS = 2**32


def pinned(seed: int) -> Random:
    return np.random.default_rng(seed).bytes


def errors(level: float, seed: int) -> NDArray[np.float64]:
    """Of rounding one value many times, in steps."""
    rounded = stochastic_round(np.full(TRIALS, level), 1e6, 1.0, toss(TRIALS, pinned(seed)))
    return rounded - level


def rounded_by(coin: int, value: float, bound: float = 1e9, factor: float = 1.0) -> int:
    return int(stochastic_round(np.array([value]), bound, factor, np.array([coin], np.uint32))[0])


# ---- coins


def test_coins_are_words_from_one_fresh_key_of_16_bytes() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return b"k" * count

    coins = toss(1000, random)
    assert asked == [16] and coins.dtype == np.uint32
    assert (coins == expand(Ring(1 << 32), b"k" * 16, 1000)).all()
    assert (toss(1000, pinned(1)) != toss(1000, pinned(2))).any()


def test_coins_are_uniform() -> None:
    """Chi-square over 256 cells. The seed is pinned; for a fresh one, false alarm 1e-6."""
    counts = np.bincount(toss(TRIALS, pinned(1)) >> 24, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


# ---- rounding


@given(st.integers(-(2**19), 2**19), st.integers(1, COINS - 1), st.integers(0, COINS - 1))
def test_a_value_is_rounded_up_by_exactly_its_fractions_share_of_coins(whole: int, fraction: int, coin: int) -> None:
    """Unbiased to the last bit, where the value and a coin fit a float64 together: below 2**20."""
    value = whole + fraction / COINS
    assert rounded_by(coin, value) == whole + (coin + fraction >= COINS)
    assert rounded_by(COINS - fraction, value) == whole + 1 and rounded_by(COINS - fraction - 1, value) == whole


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 0.999, -0.25, 123.75, -99.3])
def test_rounding_is_unbiased_and_no_error_reaches_a_step(level: float) -> None:
    """By Hoeffding a mean of n errors in a range of 1 is 0.01 off with probability 2 exp(-40). The seed is pinned."""
    off = errors(level, 2)
    assert abs(off.mean()) <= 0.01
    assert np.abs(off).max() < 1


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9])
def test_the_variance_is_f_times_1_less_f_and_so_at_most_a_quarter(fraction: float) -> None:
    """A mean square in a range of 1 is 0.01 off with probability 2 exp(-40) (Hoeffding). The seed is pinned."""
    assert (errors(7 + fraction, 3) ** 2).mean() == pytest.approx(fraction * (1 - fraction), abs=0.01)


@given(st.floats(-1e9, 1e9), st.floats(2**-10, 2**10), st.integers(0, COINS - 1))
def test_an_error_is_at_most_a_step(value: float, factor: float, coin: int) -> None:
    assert abs(rounded_by(coin, value, factor=factor) - value * factor) <= 1


@given(st.integers(-(2**28), 2**28), st.integers(0, COINS - 1))
def test_whole_numbers_stay_but_for_coins_that_a_float64_rounds_up(whole: int, coin: int) -> None:
    """Up to 2**20 for every coin; at 2**28, as many levels as CKKS has, for all but 2**-25 of them."""
    expected = {whole} if abs(whole) < 2**20 or coin < COINS - 2**7 else {whole, whole + 1}
    assert rounded_by(coin, float(whole)) in expected


@given(st.floats(2**-20, 2**20), st.integers(1, 2**20), st.sampled_from([1.0, -1.0]), st.integers(0, COINS - 1))
def test_what_is_beyond_the_bound_is_cut_off(bound: float, factor: int, sign: float, coin: int) -> None:
    for value in (sign * bound * 1.5, sign * 1e300, sign * bound):
        assert rounded_by(coin, value, bound, factor) == rounded_by(coin, sign * bound, bound, factor)
    assert abs(rounded_by(coin, sign * 1e300, bound, factor)) <= bound * factor + 1


def test_a_bound_that_float32_rounds_up_is_kept() -> None:
    """Cut off in float32, 2**24 + 3 would be 2**24 + 4."""
    bound = 2.0**24 + 3
    assert float(np.float32(bound)) > bound
    values = np.array([3e38, -3e38], np.float32)
    assert stochastic_round(values, bound, 1.0, np.zeros(2, np.uint32)).tolist() == [bound, -bound]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_values_are_not_changed(dtype: type) -> None:
    values = np.linspace(-9, 9, 100).astype(dtype)
    before, coins = values.copy(), toss(100, pinned(4))
    kept = coins.copy()
    stochastic_round(values, 4.0, 3.0, coins)
    assert (values == before).all() and (coins == kept).all()


# ---- room for noise


def bernstein(deviation: float, x: float) -> float:
    """Bernstein's bound on P(|Z| >= x) for Skellam noise."""
    return 2 * math.exp(-(x**2) / (2 * (deviation**2 + x / 3)))


def exact_tail(deviation: float, x: float) -> float:
    """P(|Z| >= x): twice the lower tail, which scipy computes without cancellation."""
    return 2 * float(stats.skellam.cdf(-math.ceil(x), deviation**2 / 2, deviation**2 / 2))


@given(st.floats(0, 2.999), st.floats(1e-3, 1e9))
def test_the_mgf_of_skellam_is_below_bernsteins(u: float, variance: float) -> None:
    assert variance * (math.cosh(u) - 1) <= variance * u**2 / 2 / (1 - u / 3) * (1 + 1e-9) + variance * 1e-15


@pytest.mark.parametrize("deviation", [0.01, 0.3, 1.0, 5.0, 30.0, 1000.0])
@pytest.mark.parametrize("failure", [0.5, 1e-3, 2.0**-40])
def test_the_tail_of_skellam_is_within_its_bound_which_is_not_loose(deviation: float, failure: float) -> None:
    x = skellam_tail(deviation, failure)
    assert bernstein(deviation, x) == pytest.approx(failure, rel=1e-9)
    assert exact_tail(deviation, x) <= failure
    if deviation >= 30 and failure < 0.01:  # where Skellam is near Gaussian, a third less would not do
        assert exact_tail(deviation, x / 1.5) > failure


@given(st.floats(0, 1e6), st.floats(1.01, 10), st.floats(1e-30, 0.5), st.floats(0.01, 0.99))
def test_the_tail_grows_with_the_noise_and_with_the_safety(
    deviation: float, factor: float, failure: float, smaller: float
) -> None:
    x = skellam_tail(deviation, failure)
    assert skellam_tail(deviation * factor, failure) >= x
    assert skellam_tail(deviation, failure * smaller) > x


@given(st.floats(1e-3, 1e6), st.integers(1, 10**9))
def test_noise_has_room_in_all_coordinates_together(deviation: float, dimension: int) -> None:
    """A union bound: each coordinate is left 2**-40 divided by their number."""
    tail = noise_tail(deviation, dimension)
    assert dimension * bernstein(deviation, tail) == pytest.approx(LARGEST_WRAP_CHANCE, rel=1e-6)
    assert noise_tail(0.0, dimension) == 0
