"""Encodings: from a float vector to a ring vector that can be summed, and from the sum back.

An encoding has two halves. Its layout (ring, length) is all that a server needs to add up what it cannot read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.base import ClientId, Random
from protocols.errors import UpdateRejected
from protocols.ring import Ring, RingVector

Floats = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Upload:
    """Whose contribution, in which session, and the public seed that it came with (empty in fixed point)."""

    session: bytes
    sender: ClientId
    seed: bytes


@dataclass(frozen=True)
class Encoded:
    """A reduced ring vector that the encoder gives away (it may be changed in place), and its public seed."""

    vector: RingVector = field(repr=False)
    seed: bytes


@dataclass(frozen=True)
class Layout:
    """What the server knows of an encoding: the ring, how many elements, how many vectors a sum may have, and how long
    a seed an upload carries."""

    ring: Ring
    length: int
    clients: int
    seed_bytes: int
    digest: bytes


class Encoding(Protocol):
    """One encoding, with whatever key it needs."""

    @property
    def layout(self) -> Layout: ...

    def encode(
        self,
        update: Floats,
        weight: float,
        session: bytes,
        sender: ClientId,
        random: Random,
        noise: Integers | None = None,
    ) -> Encoded:
        """The update cut off at the bound, times ``weight``, and on top of it ``noise`` in whole steps, not cut off.

        Raises ``UpdateRejected`` for NaN, infinity or a wrong length of either.
        """
        ...

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        """The sum of the weighted updates behind the sum of their encodings."""
        ...


def checked(update: Floats, dimension: int, noise: Integers | None = None) -> Floats:
    """The update itself, if it and the noise have the declared length and it has only finite values."""
    for given in (update, noise):
        if given is not None and given.shape != (dimension,):
            raise UpdateRejected(f"an update or noise of shape {given.shape} where ({dimension},) was declared")
    if not np.isfinite(update).all():
        raise UpdateRejected("the update contains NaN or infinity: lower the learning rate or check the data")
    return update
