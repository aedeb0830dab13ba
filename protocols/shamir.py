"""Shamir's t-of-n secret sharing (CACM 1979) over the field of p = 2**257 - 93 elements.

The field is wider than a 32-byte secret, so that every secret is one element. A share is 33 bytes, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from protocols.base import Random
from protocols.errors import ConfigurationError, MalformedMessage

PRIME = 2**257 - 93
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, threshold: int, points: Sequence[int], random: Random) -> dict[int, bytes]:
    """One share per point. Any ``threshold`` of them give the secret, fewer say nothing about it."""
    if not 1 <= threshold <= len(points):
        raise ConfigurationError(f"threshold {threshold} needs between 1 and {len(points)} share holders")
    if len(set(points)) != len(points) or 0 in points:
        raise ConfigurationError("share points must be distinct and not zero")
    coefficients = [int.from_bytes(secret, "big"), *(_uniform(random) for _ in range(threshold - 1))]
    return {x: _evaluate(coefficients, x).to_bytes(SHARE_BYTES, "big") for x in points}


def coefficients(points: Iterable[int]) -> dict[int, int]:
    """Lagrange coefficients at zero: computed once for a set of survivors, used for every secret."""
    xs = list(points)
    # Points are small, so that products over all of them are cheap before they are reduced.
    everything = prod(xs)
    return {x: everything * pow(x * prod(other - x for other in xs if other != x), -1, PRIME) % PRIME for x in xs}


def join(shares: Mapping[int, bytes], lagrange: Mapping[int, int]) -> bytes:
    """The secret behind the shares at exactly the points of ``lagrange``.

    Raises ``MalformedMessage`` if a share is no field element or the result no 32-byte secret (a share was wrong).
    """
    total = sum(lagrange[x] * element(shares[x]) for x in lagrange) % PRIME
    if total >> (8 * SECRET_BYTES):
        raise MalformedMessage("the shares do not belong to one secret")
    return total.to_bytes(SECRET_BYTES, "big")


def element(share: bytes) -> int:
    """A share's value; refuses what is not a field element."""
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise MalformedMessage("a share is not an element of the field")
    return value


def _evaluate(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % PRIME
    return value


def _uniform(random: Random) -> int:
    # Rejection, not reduction: a biased coefficient would leak about the secret.
    while True:
        value = int.from_bytes(random(SHARE_BYTES), "big") & ((1 << 257) - 1)
        if value < PRIME:
            return value
