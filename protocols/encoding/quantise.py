"""Reals as integers that can be summed: unbiased rounding, and how much room noise needs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from protocols.base import Random
from protocols.encoding import Floats
from protocols.masking import expand
from protocols.ring import Ring, RingVector

# Fewer levels than this below the bound would round small updates to noise: refused.
FEWEST_LEVELS = 1 << 8
# The chance that noise makes any coordinate of one sum wrap: that of the sparse graph's secrecy failing (sigma = 40).
LARGEST_WRAP_CHANCE = 2.0**-40
_COINS = Ring(1 << 32)


def toss(length: int, random: Random) -> RingVector:
    """Coins for ``stochastic_round``, one a value: words of 32 bits, expanded from a fresh key of 16 bytes."""
    return expand(_COINS, random(16), length)


def stochastic_round(values: Floats, bound: float, factor: float, coins: RingVector) -> NDArray[np.int64]:
    """``factor`` times the values, cut off at the bound, rounded up with the probability of the fraction lost.

    Unbiased to 2**-25 of a step for up to 2**28 levels; variance at most a quarter of a step squared.
    """
    scaled = values.astype(np.float64)
    # In float64: a bound that is rounded up to float32 is more than there may be room for.
    np.clip(scaled, -bound, bound, out=scaled)
    scaled *= factor
    scaled += coins * 2.0**-32
    return np.floor(scaled, out=scaled).astype(np.int64)


def noise_tail(deviation: float, dimension: int) -> float:
    """What symmetric Skellam noise exceeds in any of so many coordinates with chance 2**-40 at most."""
    return skellam_tail(deviation, LARGEST_WRAP_CHANCE / dimension) if deviation else 0.0  # a union bound


def skellam_tail(deviation: float, failure: float) -> float:
    """An x with P(|Z| >= x) <= ``failure`` for a symmetric Skellam variable Z of that standard deviation.

    log E exp(uZ) = variance (cosh u - 1) <= variance u**2 / 2 / (1 - u/3) for 0 <= u < 3, as (2k)! >= 2 * 3**(2k-2).
    At u = x / (variance + x/3) that gives Bernstein's P(|Z| >= x) <= 2 exp(-x**2 / (2 (variance + x/3))) (sub-gamma
    variables: Boucheron, Lugosi and Massart, 2013, section 2.4). The x here makes the right side ``failure``.
    """
    log = math.log(2 / failure)
    return log / 3 + math.hypot(log / 3, math.sqrt(2 * log) * deviation)
