"""Gaussian noise and Poisson samples from cryptographic random bytes. No torch, no seeds, no state.

Known limit: samples are float64, not a discrete Gaussian; an exact-arithmetic guarantee needs one (Mironov, CCS 2012,
describes the gap). Callers add in float64 and round the noised value to float32, which hides a sample's low bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Random = Callable[[int], bytes]
"""``random(k)`` returns k bytes. Guarantees hold only if they are unpredictable to whoever sees the output."""

_UNIT = 2.0**-53  # one step of a uniform with 53 bits, all that a float64 in [0, 1) holds exactly


def gaussian(count: int, deviation: float, random: Random = os.urandom) -> NDArray[np.float64]:
    """``count`` independent normal values with mean 0 and the given standard deviation (Box and Muller, 1958).

    A uniform of 53 bits reaches sqrt(2 * 53 * ln 2) = 8.57 deviations; the tail left out has probability 1e-17.
    """
    if not (math.isfinite(deviation) and deviation >= 0):
        raise ValueError(f"a standard deviation is finite and not negative, got {deviation}")
    pairs = (count + 1) // 2
    # (0, 1], so that the logarithm is finite
    radius = np.sqrt(-2.0 * np.log((_integers(pairs, random) + 1) * _UNIT))
    angle = (2.0 * np.pi * _UNIT) * _integers(pairs, random)
    return deviation * np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def poisson_sample(count: int, rate: float, random: Random = os.urandom) -> NDArray[np.int64]:
    """Sorted indices below ``count``, each present independently with probability ``rate`` (to within 2^-53).

    The sample may be empty, and is everything at rate 1.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"a sampling rate is in (0, 1], got {rate}")
    return np.flatnonzero(_integers(count, random) < rate / _UNIT).astype(np.int64)


def _integers(count: int, random: Random) -> NDArray[np.float64]:
    """``count`` uniform integers below 2^53, exact as float64."""
    data = random(8 * count)
    if len(data) != 8 * count:
        raise ValueError(f"the random source returned {len(data)} bytes of {8 * count}")
    return (np.frombuffer(data, dtype="<u8") >> np.uint64(11)).astype(np.float64)
