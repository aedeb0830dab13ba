"""The negacyclic number-theoretic transform: polynomials mod X^N + 1 and p as their values at the 2N-th roots of -1.

Products of polynomials become elementwise products of values (Longa and Naehrig, CANS 2016, algorithms 1 and 2). Roots
and the order of values are those of SEAL 4, so that its keys and ciphertexts are such values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from protocols.encoding import Integers
from protocols.errors import ConfigurationError
from protocols.ring import RingVector

Reals = NDArray[np.float64]

# Polynomials that go through the stages together: long inner loops, and a block that stays in the second-level cache.
_BATCH = 32
# From here on a float64 quotient is off by so much that products have to be reduced once more.
_NARROW = 1 << 48
# After so many stages of the inverse, whose sums double at each, everything is reduced.
_STAGES_UNREDUCED = 3
_MOST_BASES = 200


@dataclass(frozen=True)
class _Factors:
    """Constants to multiply by, and what makes that fast: each divided by p, as floats."""

    values: Integers = field(repr=False)
    quotients: Reals = field(repr=False)


@dataclass(frozen=True)
class Transform:
    """The transform of one degree (a power of two) and prime (1 modulo 2 * degree, below 2**54). See ``transform``."""

    degree: int
    prime: int
    _roots: _Factors = field(repr=False)
    _inverse_roots: _Factors = field(repr=False)
    _inverse_degree: _Factors = field(repr=False)

    def forward(self, polynomials: Integers) -> RingVector:
        """Values, below p, of the polynomials whose coefficients, within +-p, lie one after the other."""
        values = np.empty(len(polynomials), np.uint64)
        for source, target in self._batches(polynomials, values.view(np.int64)):
            np.remainder(self._evaluate(source.T.copy()).T, self.prime, out=target)
        return values

    def inverse(self, values: RingVector) -> Integers:
        """The coefficients behind values below p, within +-p/2 of zero, give or take a few hundred."""
        coefficients = np.empty(len(values), np.int64)
        for source, target in self._batches(values.view(np.int64), coefficients):
            target[:] = self._interpolate(source.T.copy()).T
        return coefficients

    def _batches(self, source: Integers, target: Integers) -> Iterator[tuple[Integers, Integers]]:
        left, right = source.reshape(-1, self.degree), target.reshape(-1, self.degree)
        for start in range(0, len(left), _BATCH):
            yield left[start : start + _BATCH], right[start : start + _BATCH]

    def _evaluate(self, block: Integers) -> Integers:
        """Cooley-Tukey, in place on (degree, count). From +-p, values grow to within +-14 p: no step overflows."""
        groups, half = 1, self.degree // 2
        while half:
            view = block.reshape(groups, 2, half, -1)
            low, high = view[:, 0], view[:, 1]
            product = self._times(high, self._roots, groups)
            np.subtract(low, product, out=high)
            np.add(low, product, out=low)
            groups, half = 2 * groups, half // 2
        return block

    def _interpolate(self, block: Integers) -> Integers:
        """Gentleman-Sande, in place on (degree, count)."""
        groups, half, stage = self.degree // 2, 1, 1
        while groups:
            view = block.reshape(groups, 2, half, -1)
            low, high = view[:, 0], view[:, 1]
            difference = np.subtract(low, high)
            np.add(low, high, out=low)
            high[:] = self._times(difference, self._inverse_roots, groups)
            if stage % _STAGES_UNREDUCED == 0:
                self._reduce(block)
            groups, half, stage = groups // 2, 2 * half, stage + 1
        whole = self._times(block.reshape(1, self.degree, -1), self._inverse_degree, 0)
        return self._reduce(whole).reshape(self.degree, -1)

    def _times(self, factor: Integers, constants: _Factors, group: int) -> Integers:
        """factor * constant mod p, within a few p of zero: ``group`` constants from number ``group`` on, one a row.

        The float64 quotient of |factor| <= k p is off by at most 1/2 + 3 k p 2**-53, so that the product less the
        quotient times p, both modulo 2**64, is the true difference. For p < 2**48 that is below (1/2 + k/10) p.
        """
        rows = slice(group, max(1, 2 * group))
        constant, quotient = constants.values[rows].reshape(-1, 1, 1), constants.quotients[rows].reshape(-1, 1, 1)
        product: Integers = factor * constant
        product -= np.rint(factor * quotient).astype(np.int64) * self.prime
        return product if self.prime < _NARROW else self._reduce(product)

    def _reduce(self, values: Integers) -> Integers:
        """Bring values within +-64 p to within +-p/2 of zero, in place; close to a half, by a few hundred more."""
        values -= np.rint(values * (1 / self.prime)).astype(np.int64) * self.prime
        return values


@cache
def transform(degree: int, prime: int) -> Transform:
    """The transform, with its tables made once a process. Raises ``ConfigurationError`` where there is none."""
    if degree < 2 or degree & (degree - 1) or prime % (2 * degree) != 1 or not 2 * degree < prime < 1 << 54:
        raise ConfigurationError(f"there is no transform of degree {degree} modulo {prime} here")
    root = _least_root(degree, prime)
    if root is None:
        raise ConfigurationError(f"{prime} is no prime: there is no transform modulo it")
    forward, inverse = (_powers(base, degree, prime) for base in (root, pow(root, -1, prime)))
    return Transform(degree, prime, forward, inverse, _factors([pow(degree, -1, prime)], prime))


def _least_root(degree: int, prime: int) -> int | None:
    """The least 2N-th root of unity with root**N = -1: the one that SEAL takes. None where nothing looks like one."""
    # Modulo a prime every second base gives one.
    candidates = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, _MOST_BASES))
    root = next((value for value in candidates if pow(value, degree, prime) == prime - 1), None)
    if root is None:
        return None
    square, least = root * root % prime, root
    for _ in range(degree - 1):
        root = root * square % prime
        least = min(least, root)
    return least


def _powers(root: int, degree: int, prime: int) -> _Factors:
    """root**0 to root**(degree - 1), with exponents in bit-reversed order."""
    powers = [1]
    for _ in range(degree - 1):
        powers.append(powers[-1] * root % prime)
    bits = degree.bit_length() - 1
    return _factors([powers[int(f"{place:0{bits}b}"[::-1], 2)] for place in range(degree)], prime)


def _factors(values: list[int], prime: int) -> _Factors:
    return _Factors(np.array(values, np.int64), np.array(values, np.int64) / prime)
