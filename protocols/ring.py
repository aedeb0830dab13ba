"""Rings of integers modulo m, as numpy vectors in a carrier type: sum lazily, reduce once, pack for the wire."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ConfigurationError, MalformedMessage

RingVector = NDArray[np.unsignedinteger]


_CARRIERS = {16: "<u2", 24: "<u4", 32: "<u4"}


@dataclass(frozen=True)
class Ring:
    """Integers modulo ``modulus``: 2**16, 2**24 or 2**32 in carriers that wrap by themselves, or odd, in uint64.

    Modulo 2**24 only the low three bytes of a carrier count: its sums are right modulo 2**32, so modulo 2**24 too.
    """

    modulus: int

    def __post_init__(self) -> None:
        if not (self.wraps or (self.modulus % 2 and 2 < self.modulus < 1 << 54)):
            raise ConfigurationError(f"modulus {self.modulus} is not 2**16, 2**24, 2**32 or an odd number below 2**54")

    @property
    def wraps(self) -> bool:
        """Whether the carrier's own overflow is the reduction."""
        return self.modulus in (1 << 16, 1 << 24, 1 << 32)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        return np.dtype(_CARRIERS[self.bits] if self.wraps else "<u8")

    @property
    def bits(self) -> int:
        return (self.modulus - 1).bit_length()

    @property
    def item_bytes(self) -> int:
        """Bytes of one packed element."""
        return (self.bits + 7) // 8

    @property
    def slack(self) -> int:
        """How many reduced elements a carrier can add up without overflow."""
        return (1 << 64) // self.modulus - 1 if not self.wraps else 1 << 62

    def zeros(self, length: int) -> RingVector:
        return np.zeros(length, self.dtype)

    def reduce(self, vector: RingVector) -> None:
        """Bring a lazily accumulated vector below the modulus, in place."""
        if not self.wraps:
            np.remainder(vector, np.uint64(self.modulus), out=vector)
        elif self.bits < 8 * vector.itemsize:
            np.bitwise_and(vector, vector.dtype.type(self.modulus - 1), out=vector)

    def pack(self, vector: RingVector) -> bytes:
        """The reduced vector's bytes: ``item_bytes`` each, little-endian."""
        whole, width = np.ascontiguousarray(vector, self.dtype), self.item_bytes
        if width == whole.itemsize:
            return whole.tobytes()
        # Column by column, in the largest pieces that both a packed and a carried element consist of.
        piece = gcd(width, whole.itemsize)
        pieces = whole.view(f"<u{piece}").reshape(-1, whole.itemsize // piece)
        packed = np.empty((len(whole), width // piece), pieces.dtype)
        for column in range(packed.shape[1]):
            packed[:, column] = pieces[:, column]
        return packed.tobytes()

    def unpack(self, data: bytes, length: int) -> RingVector:
        """The vector in ``data``, maybe read-only. Refuses wrong lengths and values not below the modulus."""
        if len(data) != length * self.item_bytes:
            raise MalformedMessage(f"a packed vector has {len(data)} bytes instead of {length * self.item_bytes}")
        vector = np.frombuffer(data, self.dtype) if self.item_bytes == self.dtype.itemsize else self._widened(data)
        if not self.wraps and length and int(vector.max()) >= self.modulus:
            raise MalformedMessage("a packed vector has values outside the ring")
        return vector

    def _widened(self, data: bytes) -> RingVector:
        """Elements from fewer bytes than their carrier has, each read with its neighbour's bytes, which are cut off."""
        width, carrier = self.item_bytes, self.dtype.itemsize
        vector = self.zeros(len(data) // width)
        # Up to the last element behind which a whole carrier can be read; the few others are read from a longer copy.
        most = max(0, (len(data) - carrier) // width + 1)
        rest = data[most * width :] + bytes(carrier)
        for part, source in ((vector[:most], data), (vector[most:], rest)):
            if len(part):
                read = np.ndarray(len(part), self.dtype, source, 0, (width,))
                np.bitwise_and(read, self.dtype.type((1 << 8 * width) - 1), out=part)
        return vector


class RunningSum:
    """A sum of ring vectors that holds one vector, whatever the number of terms."""

    def __init__(self, ring: Ring, length: int) -> None:
        self._ring = ring
        self._terms = 0
        self.vector = ring.zeros(length)

    def add(self, term: RingVector) -> None:
        """Add a reduced vector."""
        if self._terms >= self._ring.slack - 1:
            self._ring.reduce(self.vector)
            self._terms = 1
        np.add(self.vector, term, out=self.vector)
        self._terms += 1

    def finish(self) -> RingVector:
        """The reduced sum; the vector itself, not a copy."""
        self._ring.reduce(self.vector)
        self._terms = 1
        return self.vector
