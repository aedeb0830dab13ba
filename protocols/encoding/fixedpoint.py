"""Fixed point modulo 2**16, 2**24 or 2**32: the encoding that the server can decode once the masks are gone."""

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

# Fewer levels than this below the bound would round small updates to noise: refused.
_FEWEST_LEVELS = 1 << 8
_COINS = Ring(1 << 32)
_BLOCK = 1 << 14


class FixedPoint(Struct, frozen=True):
    """``dimension`` reals in [-bound, bound], for sums of up to ``clients`` of them, in ``bits`` bits (16, 24 or 32).

    The scale is the largest power of two under which no such sum can wrap. Rounding is stochastic and unbiased:
    each coordinate of one encoding is off by less than ``step``, with mean zero (to 2**-22 of a step).
    """

    dimension: int
    bound: float
    clients: int
    bits: int = 32

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.clients < 1 or not 0 < self.bound < float("inf"):
            raise ConfigurationError("dimension, clients and bound must be positive and finite")
        if self.bits not in (16, 24, 32):
            raise ConfigurationError(f"{self.bits} bits: fixed point has 16, 24 or 32")
        # From so many clients on, there is no room whatever the bound.
        most = (1 << (self.bits - 1)) // _FEWEST_LEVELS
        if self.clients >= most or self.bound * self.scale < _FEWEST_LEVELS:
            raise ConfigurationError(
                f"a sum of {self.clients} updates within {self.bound} does not fit {self.bits} bits usefully"
            )

    @property
    def scale(self) -> float:
        # clients * (bound * scale + 1) <= 2**(bits-1) - 1: the + 1 is what rounding can add to each term.
        room = ((1 << (self.bits - 1)) - 1) / self.clients - 1
        return float(2.0 ** np.floor(np.log2(room / self.bound)))

    @property
    def step(self) -> float:
        """The distance between neighbouring encodable values."""
        return 1 / self.scale

    @property
    def layout(self) -> Layout:
        text = f"{self.dimension} {self.bound!r} {self.clients} {self.bits}"
        return Layout(Ring(1 << self.bits), self.dimension, self.clients, 0, digest("fixed point", text.encode()))

    def encode(self, update: Floats, weight: float, session: bytes, sender: ClientId, random: Random) -> Encoded:
        checked(update, self.dimension)
        coins = expand(_COINS, random(16), self.dimension)
        # In 32 bits the coins become the vector, block by block.
        vector = coins if self.bits == 32 else self.layout.ring.zeros(self.dimension)
        for start in range(0, self.dimension, _BLOCK):
            part = slice(start, start + _BLOCK)
            vector[part] = self._round(update[part], weight, coins[part]).astype(vector.dtype)
        self.layout.ring.reduce(vector)
        return Encoded(vector, b"")

    def _round(self, values: Floats, weight: float, coins: RingVector) -> NDArray[np.int64]:
        # 64-bit integers in between: from there, every cast to a carrier is the residue modulo its size.
        scaled = np.clip(values, -self.bound, self.bound).astype(np.float64)
        scaled *= weight * self.scale
        scaled += coins * 2.0**-32
        return np.floor(scaled, out=scaled).astype(np.int64)

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        unused = 8 * total.itemsize - self.bits
        signed = total.view(np.dtype(f"<i{total.itemsize}"))
        # The sign is in the ring's top bit: move it to the carrier's and back.
        return (signed << unused >> unused if unused else signed) / self.scale
