"""A client's side of client-level privacy: no update is longer than the clip, and all shares of the noise add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from securefl.privacy.clientlevel import clipped, noise_share
from securefl.privacy.mechanism import Skellam

SINGLE = st.floats(width=32)
LARGEST = float(np.finfo(np.float32).max)
# What a float32 of the global vector can be, and whatever else a server may announce in its place.
CLIPS = st.floats(2.0**-149, LARGEST) | st.sampled_from([2.0**-149, 1e-30, 1.0, 1e30, LARGEST])
DIMENSION = 60_000


def length(vector: NDArray[np.float64]) -> float:
    """Exactly rounded, so that the test's own sum hides nothing."""
    return math.sqrt(math.fsum(float(value) ** 2 for value in vector))


@given(arrays(np.float32, st.integers(1, 40), elements=SINGLE), CLIPS)
def test_whatever_the_update_what_leaves_is_at_most_one_clip_long(update: NDArray[np.float32], clip: float) -> None:
    found, _ = clipped(update, clip)
    assert np.isfinite(found).all()
    assert length(found) <= 1


@pytest.mark.parametrize("size", [1, 1000, 1_000_003])
@pytest.mark.parametrize("value", [LARGEST, 1.0, 1e-3, 2.0**-149])
def test_a_long_vector_of_equal_values_is_at_most_one_clip_long(size: int, value: float) -> None:
    """Where rounding errors of a norm add up the most."""
    found, _ = clipped(np.full(size, value, np.float32), 2.0**-149)
    assert length(found) <= 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_zero_and_stops_nobody(bad: float) -> None:
    found, within = clipped(np.array([3.0, bad, 4.0], np.float32), 10.0)
    np.testing.assert_allclose(found, [0.3, 0.0, 0.4], rtol=1e-8)
    assert within


@pytest.mark.parametrize(("clip", "within"), [(5.0, True), (math.nextafter(5.0, 0), False), (1e-30, False)])
def test_the_count_says_whether_the_update_was_within_the_clip(clip: float, within: bool) -> None:
    assert clipped(np.array([3.0, 4.0], np.float32), clip)[1] is within


@given(arrays(np.float32, 8, elements=st.floats(-1, 1, width=32)))
def test_an_update_within_the_clip_is_itself_in_clips(update: NDArray[np.float32]) -> None:
    found, within = clipped(update, 4.0)
    assert within
    np.testing.assert_allclose(found, update.astype(np.float64) / 4, rtol=2.0**-29)


def test_clipping_keeps_the_direction_and_leaves_the_update_alone() -> None:
    update = np.array([30.0, -40.0], np.float32)
    found, within = clipped(update, 5.0)
    np.testing.assert_allclose(found, [0.6, -0.8], rtol=2.0**-29)
    assert not within
    assert update.tolist() == [30.0, -40.0]


def test_an_update_of_zeros_is_zeros_and_within() -> None:
    found, within = clipped(np.zeros(3, np.float32), 1.0)
    assert found.tolist() == [0.0, 0.0, 0.0]
    assert within


@pytest.mark.parametrize("clip", [0.0, -0.0, -1.0])
def test_an_update_of_zeros_stops_nobody_whatever_clip_a_server_announces(clip: float) -> None:
    """Else who stays away has an update of zeros, or a training that failed: no noise covers that."""
    found, _ = clipped(np.zeros(3, np.float32), clip)
    assert found.tolist() == [0.0, 0.0, 0.0]


# ---- noise

COUNT = Skellam("clipped", 5.0, 2.0**19, 1, 3)


def update_sum(honest: int, scale: float = 2.0**20) -> Skellam:
    return Skellam("update", 2.0, scale, DIMENSION, honest)


def mean_square(values: NDArray[np.int64]) -> float:
    return float(np.mean(values.astype(np.float64) ** 2))


# The mean square of n such values is off its expectation by a factor 1 +- 6 sqrt(2 / n) with probability below 1e-8
# (six deviations; at these variances a Skellam variable has a normal one's moments to 1e-9).
TOLERANCE = 6 * math.sqrt(2 / DIMENSION)


@pytest.mark.parametrize("honest", [1, 2, 7])
def test_the_shares_of_the_fewest_honest_contributors_have_the_charged_variance(honest: int) -> None:
    """False alarm: below 1e-8 each, see ``TOLERANCE``."""
    release = update_sum(honest)
    total = sum((noise_share([release]) for _ in range(honest)), np.zeros(DIMENSION, np.int64))
    assert mean_square(total) == pytest.approx(release.variance, rel=TOLERANCE)


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_a_small_variance_is_kept_too(scale: float) -> None:
    """A Skellam variable of variance v has the fourth moment 3 v^2 + v: sqrt(2 + 1/v) in place of sqrt(2). False alarm:
    below 1e-8, as above."""
    release = update_sum(3, scale)
    each = release.variance / 3
    spread = 6 * math.sqrt((2 + 1 / each) / DIMENSION)
    assert mean_square(noise_share([release])) == pytest.approx(each, rel=spread)


def test_each_release_has_its_own_noise_in_the_order_of_the_coordinates() -> None:
    """Deviations far apart: 2 / sqrt(3) in front, 5 * 2^19 / sqrt(3) behind. False alarm: below 1e-8."""
    small, many = Skellam("update", 1.0, 2.0, 4, 3), Skellam("clipped", 5.0, 2.0**19, DIMENSION, 3)
    found = noise_share([small, many])
    assert found.shape == (4 + DIMENSION,)
    assert np.abs(found[:4]).max() < 100
    assert mean_square(found[4:]) == pytest.approx(many.variance / 3, rel=TOLERANCE)


def test_every_share_is_new() -> None:
    """False alarm: two values of deviation 2^20 are equal with probability below 2^-20, 8 of them below 2^-160."""
    first, second = (noise_share([Skellam("update", 2.0, 2.0**20, 8, 3)]) for _ in range(2))
    assert (first != second).any()


@pytest.mark.attack("a contributor's own noise taken off the sum")
def test_a_contributor_that_takes_its_own_noise_off_leaves_what_is_charged() -> None:
    """Every client knows its own noise and sees the sum. False alarm: below 1e-8 each, see ``TOLERANCE``; a third of
    four is missed by 1/4, more than ten times that."""

    def left(minimum: int, honest: int) -> float:
        """The variance, in what is charged, of the noise of the fewest contributors without one's own."""
        release = update_sum(honest)
        shares = [noise_share([release]) for _ in range(minimum)]
        return mean_square(sum(shares[1:], np.zeros(DIMENSION, np.int64))) / release.variance

    assert left(minimum=4, honest=4) == pytest.approx(3 / 4, rel=TOLERANCE)  # counted on everybody's
    assert left(minimum=4, honest=3) == pytest.approx(1, rel=TOLERANCE)
    assert left(minimum=5, honest=3) > 1


def test_a_count_has_noise_for_a_sensitivity_of_a_half() -> None:
    """False alarm: a normal value is beyond 7 deviations with probability 3e-12; 100 of them are not all within a
    hundredth with probability below 1e-200."""
    shares = np.array([noise_share([COUNT])[0] for _ in range(100)])
    deviation = math.sqrt(COUNT.variance / COUNT.honest)
    assert deviation / 100 < np.abs(shares).max() < 7 * deviation
