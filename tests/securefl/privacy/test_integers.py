from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from securefl.privacy import integers
from securefl.privacy.integers import SEED_BYTES, Law, Words, blocks, draw
from securefl.privacy.noise import _Normal, _Skellam

# Each statistical test below rejects a correct generator with probability FALSE_ALARM.
FALSE_ALARM = 1e-9


@dataclass(frozen=True)
class Laplace:
    """The discrete Laplace law, whose tails are as heavy as a log-concave law's can be."""

    scale: float

    @property
    def deviation(self) -> float:
        return math.sqrt(2) * self.scale

    def log_ratio(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        return -np.abs(values) / self.scale


LAWS: tuple[Law, ...] = (
    _Normal(2.0**50),
    _Normal(1.999 * 2.0**50),
    _Skellam(1e-300),
    _Skellam(1e-3),
    _Skellam(0.7),
    _Skellam(40.0),
    _Skellam(4095.0),
    _Skellam(4097.0),
    _Skellam(2.0**60),
    _Skellam(2.0**80),
    Laplace(20.0),
    Laplace(1e9),
)
EVERY_LAW = pytest.mark.parametrize("law", LAWS, ids=str)


def bins(law: Law) -> list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
    """Of each bin: its full tiles, integers of it with both ends, and the lower edges of its partial tiles."""
    table = integers._table(law)
    wholes = Counter(table.starts[: table.full].tolist())
    partial = table.starts[table.full : table.partial]
    random = np.random.default_rng(1)
    found = []
    for number in range(-table.reach, table.reach):
        first = number << table.shift
        inside = np.r_[0, (1 << table.shift) - 1, random.integers(0, 1 << table.shift, 20)] + first
        found.append((wholes[first], inside, table.levels[partial == first]))
    return found


@EVERY_LAW
def test_a_full_tile_is_below_every_bar_and_partial_ones_cover_the_rest(law: Law) -> None:
    """So that an integer is accepted as often as its bar is high: the sum over tiles of min(1, max(0, bar - level))."""
    for full, inside, levels in bins(law):
        bars = integers._table(law).height * np.exp(law.log_ratio(inside))
        assert full <= bars.min()
        assert levels.tolist() == list(range(full, full + len(levels)))
        assert full + len(levels) >= bars.max()


@EVERY_LAW
def test_tails_are_below_their_envelope_whose_area_is_below_one_tile(law: Law) -> None:
    table = integers._table(law)
    beyond = np.arange(2000)
    envelope = math.log(table.height) + law.log_ratio(np.array([table.reach << table.shift])) - table.decay * beyond
    for end in (0, (1 << table.shift) - 1):
        right = ((table.reach + beyond) << table.shift) + end
        for values in (right, ~right):
            logs = law.log_ratio(values)
            beneath = math.log(table.height) + logs <= envelope + 1e-11
            # what is less likely than 1e-300 is floored there, which no draw of 2^128 meets
            assert (beneath | (logs < -690)).all()
    assert math.exp(envelope[0]) <= -math.expm1(-table.decay) * (1 + 1e-12)


@EVERY_LAW
def test_tables_use_up_their_tiles_and_reject_little(law: Law) -> None:
    table = integers._table(law)
    assert table.partial <= integers._LEFT
    assert integers._LEFT - table.partial < 200
    assert table.full > 0.93 * len(table.starts)


@pytest.mark.parametrize("law", [_Normal(2.0**50), _Skellam(2.0**60), Laplace(1e9)], ids=str)
def test_tails_follow_the_law(law: Law) -> None:
    """Of a bin of 2^20 integers and more, all are as good as continuous: P(beyond x) by the sum over bins' middles."""
    count, words, table = 200_000, Words("test", os.urandom), integers._table(law)
    offsets = (words.take(count) & np.uint64((1 << table.shift) - 1)).astype(np.int64)
    left = (words.take(count) >> np.uint64(63)).astype(np.bool_)
    values, accepted = integers._tails(table, offsets, left, words)
    assert (values < 0).tolist() == left.tolist()
    edges = table.reach + np.arange(1500) / 4
    middles = law.log_ratio(((edges[:-1] + 1 / 8) * 2.0**table.shift).astype(np.int64))
    reached = np.cumsum(np.exp(middles[: np.count_nonzero(middles > -600)]))
    found = np.abs(values[accepted]) / 2.0**table.shift
    assert len(found) > count / 4
    # by interpolation, which is off by less than 1e-4, where the statistic is allowed 1e-2
    below = np.interp(found, edges[: len(reached) + 1], np.r_[0, reached / reached[-1]])
    assert stats.kstest(below, "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize("law", [Laplace(0.4), Laplace(6.0), Laplace(100.0)], ids=str)
def test_draws_follow_the_law(law: Law) -> None:
    count = 300_000
    values = draw(law, count, Words("test", os.urandom))
    reach = 1 + int(np.abs(values).max())
    points = np.arange(-reach, reach + 1)
    expected = np.exp(law.log_ratio(points))
    expected *= count / expected.sum()
    seen = np.bincount(values + reach, minlength=len(points))
    often = expected > 20
    cells = np.r_[seen[often], seen[~often].sum()], np.r_[expected[often], expected[~often].sum()]
    assert stats.chisquare(cells[0], cells[1] * (count / cells[1].sum())).pvalue > FALSE_ALARM


def test_no_bit_of_a_draw_is_biased() -> None:
    """40 low bits, of 50 in a deviation, are as good as uniform: they differ from fair by far less than 2^-20."""
    values = draw(_Normal(2.0**50), 100_000, Words("test", os.urandom))
    for bit in range(40):
        ones = int(np.count_nonzero(values >> bit & 1))
        assert stats.binomtest(ones, len(values), 0.5).pvalue > FALSE_ALARM / 40


def test_draws_do_not_depend_on_one_another() -> None:
    """Neighbours, and draws that share a block of the keystream's cipher."""
    values = draw(_Normal(2.0**50), 200_000, Words("test", os.urandom)) / 2.0**50
    most = stats.norm.isf(FALSE_ALARM / 6) / math.sqrt(len(values))
    for function in (lambda x: x, np.square, np.sign):
        image = function(values)
        image = (image - image.mean()) / image.std()
        assert abs(float(np.mean(image[1:] * image[:-1]))) < most * 1.01


@dataclass(frozen=True)
class EverySecond:
    """A geometric law on both sides that leaves out every second integer, so that no tile is full."""

    scale: float

    @property
    def deviation(self) -> float:
        return math.sqrt(2) * self.scale

    def log_ratio(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        outward = np.where(values < 0, ~values, values)
        return np.where(outward % 2, -700.0, -outward / self.scale)


def test_more_rejections_than_spares_are_drawn_again() -> None:
    law = EverySecond(300.0)
    assert integers._table(law).full == 0
    values = draw(law, 50_000, Words("test", os.urandom))
    outward = np.where(values < 0, ~values, values)
    assert not (outward % 2).any()
    assert stats.binomtest(int((values < 0).sum()), len(values), 0.5).pvalue > FALSE_ALARM
    expected = -np.diff(np.exp(-np.arange(0, 700, 10) / 150), append=0)
    seen = np.bincount(np.minimum(outward // 20, len(expected) - 1), minlength=len(expected))
    assert stats.chisquare(seen, expected * len(values)).pvalue > FALSE_ALARM


def test_words_are_the_keystream_of_a_seed_and_a_label() -> None:
    """Known answers: another expansion would change every run that is replayed from its bytes."""
    words = Words("test", lambda count: bytes(range(count))).take(3)
    assert [f"{word:x}" for word in words] == ["d842f15cf143293e", "cd7b08faa555ac21", "8a27e3b34044107f"]


def test_words_do_not_depend_on_how_they_are_taken() -> None:
    count = 40_000
    whole = Words("test", bytes).take(count)
    words = Words("test", bytes)
    parts = np.concatenate([words.take(size) for size in (0, 1, 7, 20_001, count - 20_009)])
    assert (whole == parts).all()
    assert (Words("another", bytes).take(count) != whole).all()


def test_a_call_reads_one_seed() -> None:
    asked = []

    def random(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    draw(_Skellam(5.0), 100_000, Words("test", random))
    assert asked == [SEED_BYTES]


@pytest.mark.parametrize("size", [0, SEED_BYTES - 1, SEED_BYTES + 1])
def test_a_seed_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"random source returned {size} bytes"):
        Words("test", lambda count: bytes(size)).take(1)


def test_exponentials_are_exponential_and_reach_far() -> None:
    values = Words("test", os.urandom).exponentials(200_000)
    assert stats.kstest(values, "expon").pvalue > FALSE_ALARM
    assert values.min() >= 0
    assert -math.log(2.0**-128) > 88


@pytest.mark.parametrize("count", [0, 1, 16384, 16385, 50_000])
def test_blocks_cover_a_vector_once(count: int) -> None:
    covered = np.zeros(count, np.int64)
    for block in blocks(count):
        covered[block] += 1
    assert (covered == 1).all()


def test_large_orders_and_small_ones_have_the_same_bessel_functions() -> None:
    """Around the variance from which on the expansion is used: both ways agree to 13 deviations."""
    for variance in (4097.0, 9e3, 2e4):
        law = _Skellam(variance)
        orders = np.arange(0, int(13 * law.deviation))
        exact = np.log(special.ive(orders, variance) / special.ive(0, variance))
        assert np.abs(law.log_ratio(orders) - exact).max() < 4e-13


# log(I_k(v) / I_0(v)) from 120 digits: trapezoids of exp(v (cos t - 1)) cos(k t) over 40 deviations.
@pytest.mark.parametrize(
    ("variance", "order", "expected"),
    [
        (4e3, 126, -1.9845839621147718488),
        (4096.0, 640, -49.905043548281369632),
        (1e4, 1300, -84.385784817516414689),
        (1e6, 6000, -17.999955000430944065),
        (2.0**40, 13631488, -84.49999999895608956),
        (2.0**60, 10737418240, -49.99999999999999966),
        (2.0**80, 6597069766656, -18.0),
    ],
)
def test_bessel_functions_have_known_values(variance: float, order: int, expected: float) -> None:
    assert float(_Skellam(variance).log_ratio(np.array([-order]))[0]) == pytest.approx(expected, abs=1e-13, rel=0)
