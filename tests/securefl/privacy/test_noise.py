from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from securefl.privacy.noise import Random, gaussian, grid, noised, poisson_sample, skellam

# Each statistical test below rejects a correct generator with probability FALSE_ALARM.
FALSE_ALARM = 1e-9
SIDES = stats.norm.isf(FALSE_ALARM / 2)

Draw = Callable[[int, Random], NDArray[np.generic]]
DRAWS: tuple[Draw, ...] = (
    lambda count, random: gaussian(count, 1.0, random),
    lambda count, random: noised(np.zeros(count), 1.0, 2.0**-20, random),
    lambda count, random: skellam(count, 2.0**30, random),
    lambda count, random: poisson_sample(count, 0.5, random),
)
EVERY_DRAW = pytest.mark.parametrize("draw", DRAWS, ids=["gaussian", "noised", "skellam", "poisson_sample"])


def constant(count: int) -> bytes:
    return bytes(range(count))


# Gaussian noise


def test_gaussian_noise_follows_the_normal_distribution() -> None:
    sample = gaussian(200_001, 2.5)
    assert stats.kstest(sample / 2.5, "norm").pvalue > FALSE_ALARM


def test_gaussian_noise_has_the_deviation_asked_for() -> None:
    count, deviation = 100_000, 3.0
    squares = float(np.sum((gaussian(count, deviation) / deviation) ** 2))
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=count)
    assert low < squares < high


def test_gaussian_noise_has_the_kurtosis_three() -> None:
    """E x^4 = 3 and E x^8 = 105: fourth powers have the variance 96."""
    count = 1_000_000
    fourth = float(np.mean(gaussian(count, 1.0) ** 4))
    assert abs(fourth - 3) < SIDES * math.sqrt(96 / count)


def test_gaussian_noise_has_the_tails_of_the_normal_distribution() -> None:
    count = 2_000_000
    sample = np.abs(gaussian(count, 1.0))
    for beyond in (3.5, 3.875, 4.0, 4.5):
        seen = int(np.count_nonzero(sample > beyond))
        assert stats.binomtest(seen, count, 2 * stats.norm.sf(beyond)).pvalue > FALSE_ALARM / 4


def test_gaussian_noise_has_values_and_gaps_of_2_to_the_minus_50_everywhere() -> None:
    """Values are odd multiples of 2^-51; 10000 of them differ from one another but for a probability of 1e-7."""
    sample = gaussian(10_000, 1.0)
    near = sample[np.abs(sample) < 3] * 2.0**51
    assert (near % 2 == 1).all()
    assert len(np.unique(sample)) == len(sample)


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_extreme_bytes_give_finite_noise(filler: bytes) -> None:
    assert np.isfinite(gaussian(11, 1.0, lambda count: filler * count)).all()


@given(count=st.integers(0, 50))
def test_as_many_values_as_asked_for(count: int) -> None:
    assert gaussian(count, 1.0).shape == skellam(count, 1.0).shape == (count,)


def test_no_deviation_is_no_noise() -> None:
    assert not gaussian(5, 0.0).any()
    assert not skellam(5, 0.0).any()


@pytest.mark.parametrize("deviation", [-1.0, float("nan"), float("inf")])
def test_an_impossible_deviation_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        gaussian(3, deviation)
    with pytest.raises(ValueError, match="standard deviation"):
        noised(np.zeros(3), deviation, 1.0)


# The grid, and noise on it


@given(clip=st.floats(1e-200, 1e200), dimension=st.integers(1, 1 << 40))
def test_a_grid_is_the_largest_power_of_two_that_moves_no_vector_too_far(clip: float, dimension: int) -> None:
    step = grid(clip, dimension)
    assert math.frexp(step)[0] == 0.5
    # half a step on every coordinate, squared, against (clip * 2^-17)^2
    moved, most = (Fraction(step) / 2) ** 2 * dimension, (Fraction(clip) / 2**17) ** 2
    assert moved <= most < 4 * moved


def test_a_grid_has_known_steps() -> None:
    assert grid(1.0, 1) == 2.0**-16
    assert grid(1.0, 1 << 20) == 2.0**-26
    assert grid(math.nextafter(1.0, 0), 1 << 20) == 2.0**-27


@pytest.mark.parametrize(
    ("clip", "dimension"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1e-300, 1), (1.0, 0)]
)
def test_an_impossible_grid_is_refused(clip: float, dimension: int) -> None:
    with pytest.raises(ValueError, match="a grid needs"):
        grid(clip, dimension)


@given(
    total=st.lists(st.floats(-1e6, 1e6), max_size=20),
    deviation=st.floats(0, 1e6),
    exponent=st.integers(-25, 20),
)
def test_noised_sums_are_whole_steps(total: list[float], deviation: float, exponent: int) -> None:
    step = 2.0**exponent
    sums = np.array(total)
    result = noised(sums, deviation, step)
    assert (np.mod(result / step, 1) == 0).all()
    # of 1e-20 and less there is no more than 10 deviations
    assert (np.abs(result - sums) <= step + 10 * deviation).all()
    assert not np.signbit(result[result == 0]).any()


def test_noised_sums_keep_shape_and_input() -> None:
    total = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    before = total.copy()
    result = noised(total, 0.0, 1.0)
    assert (result == before).all() and result.shape == (4, 2, 3)
    far = noised(total * 1e6, 1.0, 2.0**-10)
    assert (np.abs(far - before * 1e6) < 10).all()
    assert (total == before).all()


@pytest.mark.parametrize("deviation", [0.05, 0.3, 1.0, 7.3])
def test_noise_on_a_coarse_grid_is_the_rounded_gaussian(deviation: float) -> None:
    count, step = 200_000, 0.25
    steps = noised(np.full(count, 1.1), deviation * step, step) / step - 4
    edges = np.arange(-60, 62) - 0.5  # beyond, there is less than 1e-15
    expected = count * np.diff(stats.norm.cdf(edges / deviation))
    seen = np.histogram(steps, edges)[0]
    often = expected > 20
    assert seen.sum() == count
    expected, seen = (np.r_[values[often], values[~often].sum()] for values in (expected, seen))
    if len(expected) > 2:
        expected[-1] = count - expected[:-1].sum()
        assert stats.chisquare(seen, expected, sum_check=False).pvalue > FALSE_ALARM
    else:
        assert seen.tolist() == [count, 0]  # 10 deviations are half a step


def test_noise_far_below_half_a_step_rounds_to_none() -> None:
    for deviation in (0.01, 1e-30, 1e-300, 5e-324):
        assert noised(np.array([3.2, -0.7]), deviation, 1.0).tolist() == [3.0, -1.0]
    assert noised(np.array([0.0]), 5e-324, 2.0**900).tolist() == [0.0]


def test_noise_on_a_fine_grid_follows_the_normal_distribution() -> None:
    sample = noised(np.zeros(200_000), 0.7, grid(1.0, 1 << 20)) / 0.7
    assert stats.kstest(sample, "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize("total", [float("nan"), float("inf"), -float("inf"), 1e300, 2.0**33])
def test_totals_that_float64_cannot_hold_in_steps_are_refused(total: float) -> None:
    with pytest.raises(ValueError, match="clip it"):
        noised(np.array([0.0, total]), 1.0, 2.0**-20)


def test_the_largest_total_and_deviation_are_exact() -> None:
    step = 2.0**-20
    result = noised(np.array([2.0**32, -(2.0**32)] * 500), 2.0**27, step) / step
    assert (np.abs(result) < 2.0**53).all()
    # nothing was lost of the last bit, which 1000 fair coins would be equally with probability 1e-301
    assert 0 < np.count_nonzero(result % 2) < 1000
    with pytest.raises(ValueError, match="standard deviation"):
        noised(np.zeros(1), 2.0**27 * 1.001, step)


@pytest.mark.parametrize("step", [0.0, -1.0, 3.0, float("nan"), float("inf")])
def test_a_step_that_is_no_power_of_two_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="power of two"):
        noised(np.zeros(1), 1.0, step)


# What float arithmetic tells (Mironov, CCS 2012). These two sums are so near that an honest guess from one noised value
# is right with probability 0.5002: their densities are apart by less than 0.001 / sqrt(2 pi), half of which it gains.
NEIGHBOURS = (0.1, 0.101)
GUESSES = 20_000


def can_be(outputs: NDArray[np.float64], total: float) -> NDArray[np.bool_]:
    """Whether there is a value of ``gaussian`` that gives the output, added to the total in float64."""
    cell = np.floor((outputs - total) * 2.0**50)
    return np.any([total + (cell + off + 0.5) * 2.0**-50 == outputs for off in (-2, -1, 0, 1, 2)], axis=0)


def can_be_32(outputs: NDArray[np.float32], total: float) -> NDArray[np.bool_]:
    """The same in float32, in which noise is any float."""
    noise = outputs - np.float32(total)
    around = [noise, np.nextafter(noise, np.float32(9)), np.nextafter(noise, np.float32(-9))]
    return np.any([np.float32(total) + near == outputs for near in around], axis=0)


def attack(
    release: Callable[[NDArray[np.float64]], NDArray[np.floating]], test: Callable[..., NDArray[np.bool_]]
) -> tuple[int, int]:
    """How many outputs can only have come from one of two neighbouring sums, and of how many this one is the true one.

    A sum is secret and drawn anew for each output.
    """
    secret = np.random.default_rng(7).integers(0, 2, GUESSES)
    outputs = release(np.array(NEIGHBOURS)[secret])
    first, second = (test(outputs, total) for total in NEIGHBOURS)
    certain = first != second
    return int(certain.sum()), int((certain & (second == (secret == 1))).sum())


@pytest.mark.attack("the floats that a noised float can be")
@pytest.mark.parametrize(
    ("number", "test", "least"), [(np.float64, can_be, 0.99), (np.float32, can_be_32, 0.02)], ids=["float64", "float32"]
)
def test_which_floats_can_result_tells_neighbouring_sums_apart_and_which_steps_can_does_not(
    number: type[np.floating], test: Callable[..., NDArray[np.bool_]], least: float
) -> None:
    """Without a grid nearly all results in float64, and 1 in 18 in float32, name their sum for certain."""
    certain, right = attack(lambda totals: totals.astype(number) + gaussian(GUESSES, 1.0).astype(number), test)
    assert certain == right > least * GUESSES
    step = grid(1.0, 1 << 20)
    certain, right = attack(lambda totals: noised(totals, 1.0, step).astype(number), test)
    assert stats.binomtest(right, certain, 0.5).pvalue > FALSE_ALARM if certain else True


def test_the_last_bits_of_noised_steps_do_not_depend_on_the_total() -> None:
    step = grid(1.0, 1 << 20)
    counts = [
        np.bincount((noised(np.full(100_000, total), 1.0, step) / step).astype(np.int64) & 15, minlength=16)
        for total in NEIGHBOURS
    ]
    assert stats.chi2_contingency(counts).pvalue > FALSE_ALARM


# Skellam noise


def cells(values: NDArray[np.int64], variance: float) -> float:
    """The p-value of a chi-square test of values against the Skellam law."""
    reach = max(4, int(9 * math.sqrt(variance)))
    points = np.arange(-reach, reach + 1)
    expected = len(values) * stats.skellam.pmf(points, variance / 2, variance / 2)
    often = expected > 20
    inside = np.isin(values, points[often])
    seen = np.bincount(values[inside] + reach, minlength=len(points))[often]
    rest = len(values) - seen.sum(), len(values) - expected[often].sum()
    if rest[1] < 20:  # fewer than a chi-square cell needs: by itself, where one test in 2 is each one's
        assert stats.poisson.sf(rest[0] - 1, rest[1]) > FALSE_ALARM / 2
        rest = 0, 0
    seen, expected = np.r_[seen, rest[0]], np.r_[expected[often], rest[1]]
    kept = expected > 0
    return float(stats.chisquare(seen[kept], expected[kept] * (seen.sum() / expected.sum())).pvalue)


@pytest.mark.parametrize("variance", [1e-3, 0.1, 1.0, 5.5, 60.0, 800.0])
def test_skellam_noise_follows_its_law(variance: float) -> None:
    assert cells(skellam(300_000, variance), variance) > FALSE_ALARM / 2


@pytest.mark.parametrize("variance", [0.5, 3.0, 100.0, 5000.0])
def test_skellam_noise_has_its_variance_and_kurtosis(variance: float) -> None:
    """The kurtosis is 3 + 1 / variance; the spread of each moment comes from higher ones, summed over the law."""
    count = 400_000
    values = skellam(count, variance).astype(np.float64)
    reach = int(30 * math.sqrt(variance) + 30)
    points = np.arange(-reach, reach + 1.0)
    law = stats.skellam.pmf(points, variance / 2, variance / 2)
    fourth, eighth = (float(np.sum(law * points**power)) for power in (4, 8))
    assert fourth / variance**2 == pytest.approx(3 + 1 / variance, rel=1e-9)
    off = SIDES / math.sqrt(count)
    assert abs(float(np.mean(values**2)) - variance) < off * math.sqrt(fourth - variance**2)
    assert abs(float(np.mean(values**4)) - fourth) < off * math.sqrt(eighth - fourth**2)
    assert abs(float(np.mean(values))) < off * math.sqrt(variance)
    assert abs(float(np.mean(values**3))) < off * math.sqrt(float(np.sum(law * points**6)))


@pytest.mark.parametrize("variance", [2.0**40, 2.0**60, 2.0**80])
def test_large_skellam_noise_is_as_good_as_normal(variance: float) -> None:
    """The laws are apart by about 1 / (24 variance)."""
    values = skellam(200_000, variance) / math.sqrt(variance)
    assert stats.kstest(values, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(values**2, "chi2", args=(1,)).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("shares", "variance"), [(7, 1.4), (16, 300.0), (3, 2.0**50)])
def test_shares_of_skellam_noise_add_up_to_the_law_of_the_sum(shares: int, variance: float) -> None:
    total = np.sum([skellam(100_000, variance / shares) for _ in range(shares)], axis=0)
    if variance > 1e6:
        assert stats.kstest(total / math.sqrt(variance), "norm").pvalue > FALSE_ALARM
    else:
        assert cells(total, variance) > FALSE_ALARM / 2


def test_no_bit_of_large_skellam_noise_is_biased() -> None:
    values = skellam(100_000, 2.0**60)
    for bit in range(22):
        ones = int(np.count_nonzero(values >> bit & 1))
        assert stats.binomtest(ones, len(values), 0.5).pvalue > FALSE_ALARM / 22


@pytest.mark.parametrize("variance", [-1.0, float("nan"), float("inf"), 2.0**80 * 1.001])
def test_an_impossible_variance_is_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance of Skellam noise"):
        skellam(3, variance)


# Poisson samples


def test_a_sample_has_the_rate_asked_for() -> None:
    for rate in (0.3, 0.001, 2.0**-20, 0.999):
        count = 200_000
        taken = len(poisson_sample(count, rate))
        assert stats.binomtest(taken, count, rate).pvalue > FALSE_ALARM / 4


def test_every_record_has_the_same_rate() -> None:
    count, samples, rate = 500, 2000, 0.3
    taken = np.bincount(np.concatenate([poisson_sample(count, rate) for _ in range(samples)]), minlength=count)
    squares = float(np.sum((taken - samples * rate) ** 2 / (samples * rate * (1 - rate))))
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=count)
    assert low < squares < high


def test_every_record_is_sampled_independently_of_every_other_and_of_other_samples() -> None:
    count, rate = 100_000, 0.5
    present, again = np.zeros(count), np.zeros(count)
    present[poisson_sample(count, rate)] = 1
    again[poisson_sample(count, rate)] = 1
    for first, second in ((present[:-1:2], present[1::2]), (present[: count // 2], present[count // 2 :])):
        assert stats.binomtest(int((first * second).sum()), count // 2, rate**2).pvalue > FALSE_ALARM / 3
    assert stats.binomtest(int((present * again).sum()), count, rate**2).pvalue > FALSE_ALARM / 3


@given(count=st.integers(0, 300), rate=st.floats(0.01, 1))
def test_a_sample_is_sorted_and_without_repeats(count: int, rate: float) -> None:
    rows = poisson_sample(count, rate)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    assert all(0 <= row < count for row in rows)


def test_rate_one_takes_everything() -> None:
    assert poisson_sample(1000, 1.0).tolist() == list(range(1000))
    assert len(poisson_sample(10, 1.0, lambda count: b"\xff" * count)) == 10
    # 64 bits cannot but take a record here, but for a probability of 1e-13
    assert len(poisson_sample(1000, math.nextafter(1.0, 0))) == 1000


@pytest.mark.parametrize("rate", [0.0, 1.5, -0.1, float("nan")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        poisson_sample(3, rate)


# Where randomness comes from


@EVERY_DRAW
def test_a_random_source_that_runs_dry_is_an_error(draw: Draw) -> None:
    with pytest.raises(ValueError, match="random source"):
        draw(4, lambda count: os.urandom(count - 1))


@EVERY_DRAW
def test_a_call_is_a_function_of_32_bytes_it_asks_for_once(draw: Draw) -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return constant(count)

    assert (draw(50_000, random) == draw(50_000, random)).all()
    assert asked == [32, 32]


def test_equal_bytes_give_different_calls_unrelated_noise() -> None:
    """Each kind of noise has a key of its own, also from a source that repeats itself."""
    normal, rounded = gaussian(10_000, 1.0, constant), noised(np.zeros(10_000), 1.0, 2.0**-20, constant)
    assert abs(float(np.mean(normal * rounded))) < SIDES / 100


@pytest.mark.parametrize(("one", "other"), [(one, other) for one in DRAWS[:3] for other in DRAWS[:3]])
def test_calls_steps_and_clients_are_independent(one: Draw, other: Draw) -> None:
    """Correlations of two calls, of values and of their squares, have a deviation of 1 / sqrt(count)."""
    count = 100_000
    left, right = (np.asarray(draw(count, os.urandom), np.float64) for draw in (one, other))
    for power in (1, 2):
        assert abs(float(np.corrcoef(left**power, right**power)[0, 1])) < SIDES / math.sqrt(count) * 1.05


FORKS = """
import os, sys
import numpy as np
from securefl.privacy.noise import gaussian, noised, poisson_sample, skellam
random = {random}

def draws():
    parts = gaussian(40, 1.0, random), noised(np.zeros(40), 1.0, 2.0**-40, random), skellam(40, 2.0**70, random)
    return [value.hex() for part in parts for value in map(float, part)] + [str(poisson_sample(99, 0.5, random))]

draws()
for child in range(3):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, "|".join(draws()).encode())
        os._exit(0)
    os.close(writer)
    print(os.fdopen(reader).read().replace("\\n", " "))
print("|".join(draws()).replace("\\n", " "))
"""


def drawn_after_forks(random: str) -> list[str]:
    """What three children and their parent draw, all after a draw before they parted."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS.format(random=random)], capture_output=True, text=True, check=True
    )
    return [value for line in done.stdout.splitlines() for value in line.split("|")]


@pytest.mark.attack("a generator that a fork has copied")
def test_after_a_fork_nothing_is_drawn_twice() -> None:
    """Four times 121 draws; two that are equal by chance have a probability below 1e-6 (of 2^-40 steps, 40 bits)."""
    copied = drawn_after_forks("np.random.default_rng(1).bytes")
    assert len(copied) == 484 and len(set(copied)) == 121
    ours = drawn_after_forks("os.urandom")
    assert len(ours) == 484 == len(set(ours))


# Known answers: what 32 fixed bytes give, so that no change goes unnoticed. Digests cover rejected draws too; another
# machine's logarithm changes one with a probability of about 1e-9.


def digest(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:16]


def test_gaussian_noise_has_known_answers() -> None:
    first = [0.1724650982403806, 0.3219368797070472, -0.5651009831614684, 0.17349713352202611]
    assert gaussian(4, 1.0, constant).tolist() == first
    assert digest(gaussian(20_000, 1.0, constant)) == "350e09785bb5aa37"


def test_noised_sums_have_known_answers() -> None:
    step = 2.0**-20
    assert (noised(np.arange(4.0), 1.5, step, constant) / step).tolist() == [593574, 129883, 4425912, 3676152]
    assert digest(noised(np.zeros(20_000), 1.5, step, constant)) == "830bbf0993a9a8ec"


def test_skellam_noise_has_known_answers() -> None:
    assert skellam(8, 2.5, constant).tolist() == [0, 0, 2, 1, -3, 0, 0, 0]
    assert skellam(4, 2.0**60, constant).tolist() == [429069051, -102335140, 1347816676, 1096526497]
    assert digest(skellam(20_000, 2.5, constant)) == "f46f67aab0165bf4"
    assert digest(skellam(20_000, 2.0**60, constant)) == "774f28ab412a66f2"


def test_poisson_samples_have_known_answers() -> None:
    assert poisson_sample(40, 0.25, constant).tolist() == [0, 16, 19, 22, 24, 25, 26]
