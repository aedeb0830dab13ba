"""Fixed point modulo 2**16, 2**24 or 2**32: the encoding that the server can decode once the masks are gone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Floats, Integers, Layout, Upload, checked
from protocols.encoding.quantise import FEWEST_LEVELS, noise_tail, stochastic_round, toss
from protocols.errors import ConfigurationError
from protocols.primitives import digest
from protocols.ring import Ring, RingVector

_BLOCK = 1 << 14


class FixedPoint(Struct, frozen=True):
    """``dimension`` reals in [-bound, bound], for sums of up to ``clients`` of them, in ``bits`` bits (16, 24 or 32).

    ``noise``: standard deviation, in the update's units, of zero-mean integer noise that whoever calls may add in the
    ring, before masking; all clients' noise together, with tails no heavier than those of a Skellam variable.

    The scale is the largest power of two under which no sum can wrap: never without noise; with it, except with
    probability 2**-40 for all coordinates of one sum together. Parameters without such a scale are refused.

    Rounding is stochastic and unbiased: each coordinate of one encoding is off by less than ``step``, with mean zero
    (to 2**-22 of a step) and variance at most step**2 / 4. A sum is off by less than clients * step, with mean zero
    (to clients * 2**-22 of a step) and variance at most clients * step**2 / 4.
    """

    dimension: int
    bound: float
    clients: int
    bits: int = 32
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.clients < 1 or not 0 < self.bound < math.inf or not 0 <= self.noise < math.inf:
            raise ConfigurationError("dimension, clients and bound must be positive and finite, noise from 0, finite")
        if self.bits not in (16, 24, 32):
            raise ConfigurationError(f"{self.bits} bits: fixed point has 16, 24 or 32")
        # From so many clients on, there is no room whatever the bound.
        most = (1 << (self.bits - 1)) // FEWEST_LEVELS
        if self.clients >= most or self.bound * self.scale < FEWEST_LEVELS:
            noise = f" with noise of deviation {self.noise}" if self.noise else ""
            raise ConfigurationError(
                f"a sum of {self.clients} updates within {self.bound}{noise} does not fit {self.bits} bits usefully"
            )

    @property
    def scale(self) -> float:
        """Levels a unit: a power of two, so that multiplying by it is exact."""
        scale = math.ldexp(1.0, math.frexp(self._room / self.bound)[1] - 1)
        while self.noise and not self._noise_fits(scale) and self.bound * scale >= FEWEST_LEVELS:
            scale /= 2
        return scale

    @property
    def _largest(self) -> int:
        """The largest level of a sum; the lowest is one further from zero."""
        return (1 << (self.bits - 1)) - 1

    @property
    def _room(self) -> float:
        # clients * (bound * scale + 1) <= largest: the + 1 is what rounding can add to each term.
        return self._largest / self.clients - 1

    def _noise_fits(self, scale: float) -> bool:
        """Whether bounded terms and the noise's tail stay in range together."""
        tail = noise_tail(self.noise * scale, self.dimension)
        return self.clients * (self.bound * scale + 1) + tail <= self._largest

    @property
    def step(self) -> float:
        """The distance between neighbouring encodable values."""
        return 1 / self.scale

    @property
    def layout(self) -> Layout:
        text = f"{self.dimension} {float(self.bound)!r} {self.clients} {self.bits} {float(self.noise)!r}"
        return Layout(Ring(1 << self.bits), self.dimension, self.clients, 0, digest("fixed point", text.encode()))

    def encode(
        self,
        update: Floats,
        weight: float,
        session: bytes,
        sender: ClientId,
        random: Random,
        noise: Integers | None = None,
    ) -> Encoded:
        checked(update, self.dimension, noise)
        coins = toss(self.dimension, random)
        # In 32 bits the coins become the vector, block by block.
        vector = coins if self.bits == 32 else self.layout.ring.zeros(self.dimension)
        factor = weight * self.scale
        for start in range(0, self.dimension, _BLOCK):
            part = slice(start, start + _BLOCK)
            # 64-bit integers in between: from there, every cast to a carrier is the residue modulo its size.
            rounded = stochastic_round(update[part], self.bound, factor, coins[part])
            if noise is not None:
                rounded += noise[part]
            vector[part] = rounded.astype(vector.dtype)
        self.layout.ring.reduce(vector)
        return Encoded(vector, b"")

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        unused = 8 * total.itemsize - self.bits
        signed = total.view(np.dtype(f"<i{total.itemsize}"))
        # The sign is in the ring's top bit: move it to the carrier's and back.
        return (signed << unused >> unused if unused else signed) / self.scale
