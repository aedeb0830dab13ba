"""Gaussian and Skellam noise and Poisson samples from cryptographic random bytes. No torch, no seeds, no state.

Every call reads 32 bytes from ``random`` and expands them by AES-CTR, or goes on in ``Words`` that were expanded so:
what one training draws, it draws from one stream. Guarantees assume that AES-128 is a pseudorandom permutation and that
nobody who sees an output can predict those bytes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from securefl.privacy.integers import Random, Words, blocks, draw

__all__ = ["NoisedSums", "Random", "Words", "gaussian", "grid", "noised", "poisson_sample", "skellam"]

_FINE = 2.0**50  # cells of a deviation
_MOST_DEVIATION = 2.0**47  # in steps; noise ends below 32 deviations
_MOST_STEPS = 2.0**52
_MOST_VARIANCE = 2.0**80
_AHEAD = 2**14  # values: from there on what a draw costs besides them is nothing
_LARGE = 2.0**12  # a variance from which on three terms of Debye's expansion are right to 1e-14


def gaussian(count: int, deviation: float, random: Random = os.urandom) -> NDArray[np.float64]:
    """``count`` independent normal values with mean 0 and the given standard deviation.

    Each is the middle of one of the cells, ``deviation * 2**-50`` wide, that divide the line, in float64, and has that
    cell's probability within a factor 1 +- 2^-40 out to 13 deviations; what is beyond has 1e-38. No cell is left out.
    What is added to a float shows in that float's last bits, so that to release a sum there is ``noised``.

    Raises ``ValueError`` for a deviation that is negative or not finite.
    """
    if not (math.isfinite(deviation) and deviation >= 0):
        raise ValueError(f"a standard deviation is finite and not negative, got {deviation}")
    cells = draw(_Normal(_FINE), count, Words("securefl gaussian noise", random))
    values = cells.view(np.float64)
    for block in blocks(count):
        np.multiply(np.add(cells[block], 0.5), deviation / _FINE, out=values[block])
    return values


@lru_cache(maxsize=64)
def grid(clip: float, dimension: int) -> float:
    """The largest power of two whose whole multiples are within ``clip * 2**-17`` (L2) of any ``dimension`` reals.

    Two vectors that are both rounded move apart by at most twice that, ``clip * 2**-16``. Raises ``ValueError`` for a
    clip or a dimension that has no such power.
    """
    if not (2.0**-800 <= clip <= 2.0**800 and dimension >= 1):
        raise ValueError(
            f"a grid needs a clip within 2**-800 to 2**800 and a dimension above 0, got {clip}, {dimension}"
        )
    # Rounding moves a coordinate by half a step at most: step * sqrt(dimension) / 2 <= clip * 2**-17, compared exactly.
    most = (Fraction(clip) / 2**16) ** 2 / dimension
    step = 2.0 ** math.frexp(clip / math.sqrt(dimension))[1]
    while Fraction(step) ** 2 > most:
        step /= 2
    return step


def noised(
    total: NDArray[np.float64], deviation: float, step: float, random: Random = os.urandom
) -> NDArray[np.float64]:
    """``(round(total / step) + round(noise / step)) * step`` for Gaussian noise, without a rounding error.

    ``step`` must depend on no data (see ``grid``); the result has the shape of ``total``.

    Guarantee: adding floats tells sums apart by which results they can have at all (Mironov, CCS 2012). Here a result
    is a whole multiple of ``step``, whatever the total, and any multiple can result from any total. Noise rounded
    beside whole steps is the exact Gaussian mechanism's result, rounded, so that its epsilon and delta hold, for the
    sensitivity of ``round(total / step) * step``: at most that of ``total`` as it was computed, its float errors
    included, and ``step * sqrt(dimension)``.

    Not proven: exactness. A number of steps has the probability of the rounded Gaussian within a factor 1 +- 2^-40 out
    to 13 deviations, and what is beyond has 1e-38. Of n coordinates, of all sums together, an event's probability is
    the exact one within a factor exp(n * 2^-39) and n * 1e-38: epsilon grows by n * 2^-38, 0.004 for n = 2^30. Besides,
    the adversary must not tell AES-128-CTR from random. How long a call took may tell something of its noise.

    Raises ``ValueError``, before any noise is drawn, for a step that is no power of two, for a deviation above 2**47
    steps, and for totals above 2**52 steps, with which float64 might not hold the result.
    """
    return NoisedSums(deviation, step, 1, Words("securefl noised sum", random)).noised(total)


class NoisedSums:
    """Several ``noised`` sums of one deviation on one grid, ``count`` of them at most, from one stream of ``words``.

    The guarantee is that of ``noised`` for each. Noise of short sums is drawn for some of them at once.
    """

    def __init__(self, deviation: float, step: float, count: int, words: Words) -> None:
        self._deviation, self._step, self._left, self._words = deviation, step, count, words
        self._ahead = np.empty(0, np.int64)

    def noised(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next one, of the shape of ``total``. Raises ``ValueError`` as ``noised`` does, and after the last one."""
        if self._left < 1:
            raise ValueError("all sums of this series were made: begin another, with words of its own")
        steps, step = _whole_steps(total, self._deviation, self._step), self._step
        if self._deviation / step == 0:
            return steps * step + 0.0  # no negative zero, as none comes out below
        if len(self._ahead) < steps.size:
            self._draw(steps.size)
        noise, self._ahead = self._ahead[: steps.size], self._ahead[steps.size :]
        self._left -= 1
        flat = steps.reshape(-1)
        for block in blocks(len(flat)):
            np.multiply(np.add(flat[block], noise[block], out=flat[block]), step, out=flat[block])
        return steps

    def _draw(self, size: int) -> None:
        """Whole steps of noise, for as many sums of this size as there are left or as are worth while."""
        fraction, exponent = math.frexp(self._deviation / self._step)
        # Cells of 2^-51 to 2^-50 deviations that are finer than a step by a power of two: half steps are edges of them.
        finer = min(51 - exponent, 62)
        count = size * max(1, min(self._left, _AHEAD // size))
        cells = self._ahead = draw(_Normal(fraction * 2 * _FINE), count, self._words)
        for block in blocks(count):
            np.right_shift(np.add(cells[block], 1 << (finer - 1), out=cells[block]), finer, out=cells[block])


def _whole_steps(total: NDArray[np.float64], deviation: float, step: float) -> NDArray[np.float64]:
    if not (0 < step < math.inf and math.frexp(step)[0] == 0.5):
        raise ValueError(f"a step is a power of two, got {step}: take it from grid()")
    if not 0 <= deviation <= _MOST_DEVIATION * step:
        raise ValueError(f"a standard deviation is not negative and at most 2**47 steps of {step}, got {deviation}")
    with np.errstate(over="ignore"):  # infinity is refused below
        steps = np.array(total, np.float64, order="C") / step
    np.rint(steps, out=steps)
    if steps.size and not -_MOST_STEPS <= steps.min() <= steps.max() <= _MOST_STEPS:
        raise ValueError(f"a total is not finite or above 2**52 steps of {step}: clip it, or use a larger step")
    return steps


def skellam(count: int, variance: float, random: Random = os.urandom) -> NDArray[np.int64]:
    """``count`` independent integers of the symmetric Skellam law: differences of two equal Poisson variates.

    That is the noise of Agarwal et al., NeurIPS 2021: sums of such variates have the same law, their variances added.
    The probability of k is exp(-v) I_k(v) for the variance v, here within a factor 1 +- 2^-40 where it is above 1e-40
    of that of 0; all other k together have 1e-38.

    Raises ``ValueError`` for a variance that is negative or above 2^80. Up to there values are below 2^46, so that 2^17
    of them add up in int64, and float64 holds each of them and its probability as precisely as stated.
    """
    if not 0 <= variance <= _MOST_VARIANCE:
        raise ValueError(f"a variance of Skellam noise is within 0 and 2**80, got {variance}: lower the scale")
    if variance == 0:
        return np.zeros(count, np.int64)
    return draw(_Skellam(float(variance)), count, Words("securefl skellam noise", random))


def poisson_sample(count: int, rate: float, random: Random | Words = os.urandom) -> NDArray[np.int64]:
    """Sorted indices below ``count``, each present independently with probability ``rate`` (to within 2^-64).

    The sample may be empty, and is everything at rate 1. Raises ``ValueError`` for a rate outside (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"a sampling rate is in (0, 1], got {rate}")
    stream = random if isinstance(random, Words) else Words("securefl poisson sample", random)
    words = stream.take(count)
    return np.arange(count) if rate == 1 else np.flatnonzero(words < np.uint64(int(rate * 2.0**64)))


@dataclass(frozen=True)
class _Normal:
    """Floors of a normal variate with mean 0. Its deviation is so large that a cell is as its middle: 2^50 and more."""

    deviation: float

    def log_ratio(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        logs: NDArray[np.float64] = -0.5 * np.square((values + 0.5) / self.deviation)
        return logs


@dataclass(frozen=True)
class _Skellam:
    """The symmetric Skellam law. Bessel's functions are scipy's for a small variance, and right to 1e-13 there."""

    variance: float

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def log_ratio(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        orders = np.abs(values).astype(np.float64)
        if self.variance >= _LARGE:
            return _debye(orders, self.variance)
        bessel: NDArray[np.float64] = ive(orders, self.variance) / ive(0, self.variance)
        return np.log(np.maximum(bessel, np.finfo(np.float64).tiny))


def _debye(orders: NDArray[np.float64], argument: float) -> NDArray[np.float64]:
    """log(I_k(x) / I_0(x)) by the uniform expansion for large orders (NIST DLMF 10.41.3), in terms of r^2 = k^2 + x^2.

    Written so, it is right for small orders too: at order 0 it is the expansion for large arguments (10.40.1).
    """
    root = np.hypot(orders, argument)
    slope = orders / argument
    leading = orders * (orders / (root + argument) - np.arcsinh(slope)) - 0.25 * np.log1p(np.square(slope))
    result: NDArray[np.float64] = (
        leading + _debye_series(orders, root) - _debye_series(np.zeros(1), np.array([argument]))
    )
    return result


def _debye_series(orders: NDArray[np.float64], root: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 + U_1(p) / k + U_2(p) / k^2 + U_3(p) / k^3) with p = k / r (10.41.10)."""
    p2 = np.square(orders / root)
    first = (3 - 5 * p2) / 24
    second = (81 + p2 * (-462 + p2 * 385)) / 1152
    third = (30375 + p2 * (-369603 + p2 * (765765 - p2 * 425425))) / 414720
    result: NDArray[np.float64] = np.log1p((first + (second + third / root) / root) / root)
    return result
