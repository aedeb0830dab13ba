"""Randomness from a seed, for runs that are to be repeated. Whoever knows the seed takes the noise off exactly.

Nothing that is made from it has a privacy guarantee: ledgers, statements and reports of such a run say so.
"""

from __future__ import annotations

import hashlib

from securefl.privacy.noise import Random


def seeded(seed: int, *names: object) -> Random:
    """``random(k)`` that repeats itself for the same seed and names, and is independent for others (SHAKE-256)."""
    root = "\0".join(["securefl simulation", str(seed), *map(str, names)]).encode()
    calls = 0

    def random(count: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(root + calls.to_bytes(8)).digest(count)

    return random
