"""Fixed point modulo 2**32: the encoding that the server can decode once the masks are gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Floats, Layout, Upload, checked
from protocols.errors import ConfigurationError
from protocols.masking import expand
from protocols.primitives import digest
from protocols.ring import Ring, RingVector

RING = Ring(1 << 32)
# Fewer levels than this below the bound would round small updates to noise: refused.
_FEWEST_LEVELS = 1 << 10
# From here on, a sum of this many leaves no room for useful precision whatever the bound.
_MOST_CLIENTS = (1 << 31) // _FEWEST_LEVELS
_BLOCK = 1 << 16


class FixedPoint(Struct, frozen=True):
    """``dimension`` reals in [-bound, bound], for sums of up to ``clients`` of them.

    The scale is the largest power of two under which no such sum can wrap. Rounding is stochastic and unbiased:
    each coordinate of one encoding is off by less than ``step``, with mean zero (to 2**-22 of a step).
    """

    dimension: int
    bound: float
    clients: int

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.clients < 1 or not 0 < self.bound < float("inf"):
            raise ConfigurationError("dimension, clients and bound must be positive and finite")
        if self.clients >= _MOST_CLIENTS or self.bound * self.scale < _FEWEST_LEVELS:
            raise ConfigurationError(
                f"a sum of {self.clients} updates within {self.bound} does not fit 32 bits with useful precision"
            )

    @property
    def scale(self) -> float:
        # clients * (bound * scale + 1) <= 2**31 - 1: the + 1 is what rounding can add to each term.
        room = ((1 << 31) - 1) / self.clients - 1
        return float(2.0 ** np.floor(np.log2(room / self.bound)))

    @property
    def step(self) -> float:
        """The distance between neighbouring encodable values."""
        return 1 / self.scale

    @property
    def layout(self) -> Layout:
        text = f"{self.dimension} {self.bound!r} {self.clients}"
        return Layout(RING, self.dimension, self.clients, 0, digest("fixed point", text.encode()))

    def encode(self, update: Floats, weight: float, session: bytes, sender: ClientId, random: Random) -> Encoded:
        checked(update, self.dimension)
        # The rounding coins become the vector, block by block.
        vector = expand(RING, random(16), self.dimension)
        for start in range(0, self.dimension, _BLOCK):
            block = vector[start : start + _BLOCK]
            block[:] = self._round(update[start : start + _BLOCK], weight, block)
        return Encoded(vector, b"")

    def _round(self, values: Floats, weight: float, coins: RingVector) -> NDArray[np.uint32]:
        scaled = np.clip(values.astype(np.float64), -self.bound, self.bound)
        scaled *= weight * self.scale
        scaled += coins * 2.0**-32
        return np.floor(scaled, out=scaled).astype(np.int64).astype(np.uint32)

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        return total.view(np.int32) / self.scale
