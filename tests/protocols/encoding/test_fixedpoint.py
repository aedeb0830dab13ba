from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import skellam

from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, UpdateRejected
from protocols.ring import RunningSum
from tests.protocols.encoding.test_quantise import bernstein

SESSION = bytes(32)


def decoded_sum(coder: FixedPoint, updates: list[np.ndarray], weights: list[float] | None = None) -> np.ndarray:
    total = RunningSum(coder.layout.ring, coder.dimension)
    for update, weight in zip(updates, weights or [1.0] * len(updates), strict=True):
        total.add(coder.encode(update, weight, SESSION, "c", os.urandom).vector)
    return coder.decode(total.finish(), ())


@given(
    st.floats(1e-6, 1e6),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(2**-10, 1)), min_size=1, max_size=20),
)
def test_a_decoded_sum_is_off_by_less_than_a_step_a_term(bound: float, terms: list[tuple[float, float]]) -> None:
    coder = FixedPoint(1, bound, len(terms))
    updates = [np.array([value * bound]) for value, _ in terms]
    weights = [weight for _, weight in terms]
    expected = sum(u[0] * w for u, w in zip(updates, weights, strict=True))
    assert abs(decoded_sum(coder, updates, weights)[0] - expected) <= len(terms) * coder.step * (1 + 2**-20)


@given(st.floats(1e-9, 1e9), st.integers(1, 2000), st.sampled_from([1.0, -1.0]))
def test_a_sum_of_the_largest_updates_does_not_wrap(bound: float, clients: int, sign: float) -> None:
    coder = FixedPoint(1, bound, clients)
    worst = coder.encode(np.array([sign * bound]), 1.0, SESSION, "c", lambda count: b"\xff" * count).vector
    total = (worst * np.uint32(clients)).view(np.int32)[0]
    # Rounding may move every term by one level in the same direction.
    assert clients * (bound * coder.scale + 1) <= 2**31 - 1
    assert np.sign(total) == sign
    assert abs(total / coder.scale - sign * clients * bound) <= clients * coder.step


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bound_that_float32_rounds_up_does_not_wrap(bits: int, dtype: type) -> None:
    """The room is used to the last level: cut off in float32, each term would be up to 64 levels too large."""
    room = (2 ** (bits - 1) - 1) / 3 - 1
    coder = FixedPoint(2, room, 3, bits)
    assert coder.scale == 1.0
    update = np.array([2 * room, -2 * room], dtype)
    worst = coder.encode(update, 1.0, SESSION, "c", lambda count: b"\xff" * count).vector
    total = RunningSum(coder.layout.ring, 2)
    for _ in range(3):
        total.add(worst)
    assert np.abs(coder.decode(total.finish(), ()) - [3 * room, -3 * room]).max() <= 3


# One trial of rounding: errors of n coordinates have mean 0 and variance f (1 - f) <= 1/4, in steps, f the fraction.
TRIALS = 200_000
LEVELS = (0.0, 0.1, 0.5, 0.999, -0.25, 123.75, -99.3)


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("level", LEVELS)
def test_rounding_is_unbiased_and_no_error_reaches_a_step(bits: int, level: float) -> None:
    """False alarm: by Hoeffding a mean of n errors in a range of 1 is 0.01 off with probability 2 exp(-40) < 1e-17."""
    coder = FixedPoint(TRIALS, 1.0, 3, bits)
    value = level * coder.step
    errors = decoded_sum(coder, [np.full(TRIALS, value)]) / coder.step - level
    assert abs(errors.mean()) <= 0.01
    assert np.abs(errors).max() < 1


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_sum_is_unbiased_and_its_variance_at_most_a_quarter_step_a_client(bits: int) -> None:
    """Halves are the worst case, 1/4 a client. Errors of 5 clients are within 2.5 steps: by Hoeffding the mean is
    0.05 off with probability 2 exp(-40), the mean square (range 6.25, mean 1.25) 0.1 off with 2 exp(-102)."""
    coder = FixedPoint(TRIALS, 1.0, 5, bits)
    updates = [np.full(TRIALS, level * coder.step) for level in (0.5, -0.5, 7.5, -30.5, 11.5)]
    errors = (decoded_sum(coder, updates) - sum(updates)) / coder.step
    assert abs(errors.mean()) <= 0.05
    assert abs((errors**2).mean() - 5 / 4) <= 0.1


def test_values_that_are_levels_are_exact() -> None:
    coder = FixedPoint(4, 1.0, 3)
    levels = np.array([0.0, 7.0, -7.0, 100_000.0]) * coder.step
    assert decoded_sum(coder, [levels]).tolist() == levels.tolist()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3))
def test_values_beyond_the_bound_are_cut_off(values: list[float]) -> None:
    coder = FixedPoint(3, 2.0, 4)
    off = decoded_sum(coder, [np.array(values, np.float32)]) - np.clip(values, -2, 2)
    assert np.abs(off).max() <= coder.step


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(UpdateRejected, match="NaN"):
        FixedPoint(3, 1.0, 3).encode(np.array([0.0, bad, 0.0]), 1.0, SESSION, "c", os.urandom)


@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (3, 1)])
def test_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateRejected, match="shape"):
        FixedPoint(3, 1.0, 3).encode(np.zeros(shape), 1.0, SESSION, "c", os.urandom)


def test_encoding_leaves_the_update_as_it_is_and_spans_several_blocks() -> None:
    n = (1 << 16) * 2 + 5
    update = np.random.default_rng(1).normal(0, 1, n).astype(np.float32)
    before = update.copy()
    coder = FixedPoint(n, 8.0, 3)
    assert np.abs(decoded_sum(coder, [update]) - before).max() < coder.step
    assert (update == before).all()


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1.0, 3),
        (3, 0.0, 3),
        (3, -1.0, 3),
        (3, float("inf"), 3),
        (3, float("nan"), 3),
        (3, 1.0, 0),
        (3, 1.0, 1 << 23),  # 2**31 / 2**23 levels: too coarse
        (3, 1.0, 1 << 40),
        (3, 1e-310, 3),  # the scale would be infinite
        (3, 1.0, 128, 16),  # 2**15 / 2**7 levels
        (3, 1.5, 100, 16),  # 218 levels a unit would fit, and the power of two below leaves 192 for the bound
        (3, 1.0, 1 << 15, 24),
    ],
)
def test_what_could_wrap_or_says_nothing_is_refused_at_construction(arguments: tuple[int, float, int]) -> None:
    with pytest.raises(ConfigurationError):
        FixedPoint(*arguments)


def test_layouts_differ_wherever_sums_would_not_decode_alike() -> None:
    base = FixedPoint(3, 1.0, 3).layout
    assert base == FixedPoint(3, 1.0, 3).layout
    others = [FixedPoint(4, 1.0, 3), FixedPoint(3, 2.0, 3), FixedPoint(3, 1.0, 4), FixedPoint(3, 1.0, 3, noise=1e-9)]
    assert len({base.digest, *(other.layout.digest for other in others)}) == 5
    assert base == FixedPoint(3, 1, 3, noise=0).layout
    assert base.seed_bytes == 0 and base.clients == 3


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_sums_of_any_width_are_right_to_one_step_a_client(bits: int) -> None:
    generator = np.random.default_rng(bits)
    updates = generator.uniform(-1, 1, (5, 400)).astype(np.float32)
    updates[:, :2] = (1.0, -1.0)  # the extreme sums, where one more level would wrap
    coder = FixedPoint(400, 1.0, 5, bits)
    total = RunningSum(coder.layout.ring, 400)
    for update in updates:
        packed = coder.layout.ring.pack(coder.encode(update, 1.0, b"", "c", os.urandom).vector)
        assert len(packed) == 400 * bits // 8
        total.add(coder.layout.ring.unpack(packed, 400))
    assert np.abs(coder.decode(total.finish(), []) - updates.astype(np.float64).sum(axis=0)).max() < 5 * coder.step


def test_other_widths_are_refused_and_each_has_its_own_layout() -> None:
    with pytest.raises(ConfigurationError, match="16, 24 or 32"):
        FixedPoint(3, 1.0, 3, 20)
    assert len({FixedPoint(3, 1.0, 3, bits).layout.digest for bits in (16, 24, 32)}) == 3


PARAMETERS = (
    st.integers(1, 10**8),
    st.floats(1e-6, 1e6),
    st.integers(3, 2000),
    st.sampled_from([16, 24, 32]),
    st.floats(1e-3, 1e4),
)


def constructed(dimension: int, bound: float, clients: int, bits: int, noise: float) -> FixedPoint:
    """The encoding with noise of so many bounds; a refused one is no example."""
    try:
        return FixedPoint(dimension, bound, clients, bits, noise * bound)
    except ConfigurationError:
        assume(False)
        raise


@given(*PARAMETERS)
def test_at_the_chosen_scale_noise_wraps_no_coordinate_but_with_chance_2_to_minus_40(
    dimension: int, bound: float, clients: int, bits: int, noise: float
) -> None:
    coder = constructed(dimension, bound, clients, bits, noise)
    rest = 2 ** (bits - 1) - 1 - clients * (bound * coder.scale + 1)
    assert dimension * bernstein(coder.noise * coder.scale, rest) <= 2.0**-40 * (1 + 1e-6)


@given(*PARAMETERS)
def test_twice_the_chosen_scale_could_wrap(dimension: int, bound: float, clients: int, bits: int, noise: float) -> None:
    coder = constructed(dimension, bound, clients, bits, noise)
    rest = 2 ** (bits - 1) - 1 - clients * (bound * 2 * coder.scale + 1)
    assert rest < 0 or dimension * bernstein(coder.noise * 2 * coder.scale, rest) > 2.0**-40 * (1 - 1e-6)


@given(*PARAMETERS, st.floats(0, 1))
def test_less_noise_never_needs_a_smaller_scale(
    dimension: int, bound: float, clients: int, bits: int, noise: float, part: float
) -> None:
    coder = constructed(dimension, bound, clients, bits, noise)
    quieter = FixedPoint(dimension, bound, clients, bits, coder.noise * part)
    assert FixedPoint(dimension, bound, clients, bits).scale >= quieter.scale >= coder.scale


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_extreme_sums_with_noise_decode_right(bits: int) -> None:
    """The noise is as large as is accepted (to 1 %), so that its tail decides the scale. False alarm: 2**-40."""
    noise = 1.0
    while True:
        try:
            coder = FixedPoint(10_000, 1.0, 4, bits, noise * 1.01)
        except ConfigurationError:
            break
        noise *= 1.01
    coder = FixedPoint(10_000, 1.0, 4, bits, noise)
    assert coder.scale < FixedPoint(10_000, 1.0, 4, bits).scale
    variance = (noise * coder.scale) ** 2
    added = skellam.rvs(variance / 2, variance / 2, size=10_000, random_state=bits)
    update = np.where(np.arange(10_000) % 2, 1.0, -1.0)
    total = RunningSum(coder.layout.ring, 10_000)
    for _ in range(4):
        total.add(coder.encode(update, 1.0, SESSION, "c", os.urandom).vector)
    total.add((added % coder.layout.ring.modulus).astype(coder.layout.ring.dtype))
    assert np.abs(coder.decode(total.finish(), ()) - (4 * update + added / coder.scale)).max() <= 4 * coder.step


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf"), 1e300, 2.0**22])
def test_noise_that_leaves_no_room_is_refused_at_construction(noise: float) -> None:
    with pytest.raises(ConfigurationError, match="noise"):
        FixedPoint(1000, 1.0, 3, 32, noise)


def test_more_coordinates_or_clients_leave_less_room_for_noise() -> None:
    assert FixedPoint(10, 1.0, 10, 16, 11.0).scale == 256
    for dimension, clients in ((10**15, 10), (10, 100)):
        with pytest.raises(ConfigurationError, match="with noise of deviation"):
            FixedPoint(dimension, 1.0, clients, 16, 11.0)


# ---- noise in the ring


@given(
    st.sampled_from([16, 24, 32]),
    st.lists(st.tuples(st.floats(-2, 2), st.integers(-(2**40), 2**40)), min_size=1, max_size=30),
    st.floats(2**-10, 1),
)
def test_noise_is_added_to_the_level_in_the_ring_and_changes_nothing_else(
    bits: int, coordinates: list[tuple[float, int]], weight: float
) -> None:
    coder = FixedPoint(len(coordinates), 1.0, 3, bits)
    update, noise = np.array([value for value, _ in coordinates]), np.array([level for _, level in coordinates])
    before = noise.copy()

    def same(count: int) -> bytes:
        return b"\x5a" * count

    without = coder.encode(update, weight, SESSION, "c", same).vector.astype(np.int64)
    found = coder.encode(update, weight, SESSION, "c", same, noise).vector.astype(np.int64)
    assert (found == (without + noise) % coder.layout.ring.modulus).all()
    assert (noise == before).all()


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_sum_holds_all_noise_though_it_is_beyond_the_bound_and_spans_several_blocks(bits: int) -> None:
    n, generator = (1 << 14) * 2 + 5, np.random.default_rng(bits)
    coder = FixedPoint(n, 1.0, 3, bits, 3.0)
    noises = [generator.integers(-3, 3, n) * int(coder.scale) for _ in range(3)]
    total = RunningSum(coder.layout.ring, n)
    for noise in noises:
        total.add(coder.encode(np.full(n, 0.5), 1.0, SESSION, "c", os.urandom, noise).vector)
    np.testing.assert_array_equal(coder.decode(total.finish(), ()), 1.5 + sum(noises) / coder.scale)


@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (1,), (3, 1)])
def test_noise_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    """One value for all coordinates would be no noise on their differences."""
    with pytest.raises(UpdateRejected, match="noise of shape"):
        FixedPoint(3, 1.0, 3).encode(np.zeros(3), 1.0, SESSION, "c", os.urandom, np.zeros(shape, np.int64))
