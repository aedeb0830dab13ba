from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, UpdateRejected
from protocols.ring import RunningSum

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


def test_rounding_is_unbiased() -> None:
    """The mean of n roundings of one value deviates by 6 standard errors with probability below 2e-9 a value."""
    n = 200_000
    coder = FixedPoint(n, 1.0, 3)
    for level in (0.0, 0.1, 0.5, 0.999, -0.25, 12345.75, -99999.3):
        value = level * coder.step
        errors = coder.decode(coder.encode(np.full(n, value), 1.0, SESSION, "c", os.urandom).vector, ()) - value
        assert abs(errors.mean()) <= 6 * coder.step * 0.5 / np.sqrt(n)
        assert np.abs(errors).max() < coder.step


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
    ],
)
def test_what_could_wrap_or_says_nothing_is_refused_at_construction(arguments: tuple[int, float, int]) -> None:
    with pytest.raises(ConfigurationError):
        FixedPoint(*arguments)


def test_layouts_differ_wherever_sums_would_not_decode_alike() -> None:
    base = FixedPoint(3, 1.0, 3).layout
    assert base == FixedPoint(3, 1.0, 3).layout
    others = [FixedPoint(4, 1.0, 3), FixedPoint(3, 2.0, 3), FixedPoint(3, 1.0, 4)]
    assert len({base.digest, *(other.layout.digest for other in others)}) == 4
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
