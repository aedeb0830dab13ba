"""Masks that cancel: keystreams expanded to ring elements and added block by block, in place.

Expansion, for a 16-byte AES key: the output is cut into chunks of 4 MiB of carrier words. Chunk c is AES-128-CTR
from counter block BE96(c) || BE32(2), read as little-endian words. Modulo 2**32 a word is an element. Modulo p a
word's low bits (as many as p has) are an element if below p; a rejected word is replaced, in order, by the next
acceptable word of the same chunk's spare stream, which starts at counter BE96(c) || BE32(2 + 2**18).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from protocols.primitives import Keystream, derive
from protocols.ring import Ring, RingVector

CHUNK_BYTES = 4 << 20
# A block of the output stays in the second-level cache while every mask passes over it.
BLOCK_BYTES = 128 << 10
_SPARE_BYTES = 1024


@dataclass(frozen=True)
class Mask:
    """A mask to add or to take away: the AES key of its keystream, and its sign."""

    key: bytes = field(repr=False)
    sign: Literal[1, -1]


def mask_key(seed: bytes, label: str, session: bytes, ring: Ring, length: int, pair: tuple[bytes, bytes]) -> bytes:
    """The AES key of one mask, bound to everything that must agree for it to cancel."""
    size = length.to_bytes(8, "big")
    return derive(seed, label, session, ring.modulus.to_bytes(8, "big"), size, *pair, length=16)


def apply_masks(vector: RingVector, ring: Ring, masks: Sequence[Mask]) -> None:
    """Add all masks to a reduced vector, in place; the result is reduced."""
    zeros = memoryview(bytes(BLOCK_BYTES))  # one for all streams, so that it stays in the cache
    streams = [(_Expander(ring, mask.key, zeros), mask.sign) for mask in masks]
    step = BLOCK_BYTES // ring.dtype.itemsize
    scratch = np.empty(step, ring.dtype)
    for start in range(0, len(vector), step):
        block = vector[start : start + step]
        for count, (stream, sign) in enumerate(streams, 1):
            _accumulate(block, stream.read(scratch[: len(block)]), sign, ring)
            if count % (ring.slack - 1) == 0:
                ring.reduce(block)
        ring.reduce(block)


def expand(ring: Ring, key: bytes, length: int) -> RingVector:
    """``length`` uniform ring elements from a keystream."""
    vector = ring.zeros(length)
    apply_masks(vector, ring, [Mask(key, 1)])
    return vector


def _accumulate(block: RingVector, mask: RingVector, sign: int, ring: Ring) -> None:
    if sign > 0:
        np.add(block, mask, out=block)
    elif ring.wraps:
        np.subtract(block, mask, out=block)
    else:  # p - mask is below 2**54 too, so lazy addition cannot underflow
        np.subtract(np.uint64(ring.modulus), mask, out=mask)
        np.add(block, mask, out=block)


class _Expander:
    """Reads one mask from its start, in blocks that divide a chunk."""

    def __init__(self, ring: Ring, key: bytes, zeros: memoryview) -> None:
        self._ring = ring
        self._key = key
        self._chunk = -1
        self._left = 0
        self._zeros = zeros

    def read(self, out: RingVector) -> RingVector:
        if self._left == 0:
            self._next_chunk()
        self._main.read_into(self._zeros[: out.nbytes], out.view(np.uint8).data)
        self._left -= out.nbytes
        if not self._ring.wraps:
            self._reject(out)
        return out

    def _next_chunk(self) -> None:
        self._chunk += 1
        self._left = CHUNK_BYTES
        self._main = Keystream(self._key, _counter(self._chunk, 2))
        self._spare = Keystream(self._key, _counter(self._chunk, 2 + CHUNK_BYTES // 16))
        self._spares: list[int] = []

    def _reject(self, out: RingVector) -> None:
        np.bitwise_and(out, np.uint64((1 << self._ring.bits) - 1), out=out)
        for index in np.flatnonzero(out >= self._ring.modulus):
            out[index] = self._next_spare()

    def _next_spare(self) -> int:
        while not self._spares:
            raw = bytearray(_SPARE_BYTES)
            self._spare.read_into(self._zeros[:_SPARE_BYTES], memoryview(raw))
            words = np.frombuffer(raw, "<u8") & np.uint64((1 << self._ring.bits) - 1)
            self._spares = [int(word) for word in words if word < self._ring.modulus]
        return self._spares.pop(0)


def _counter(chunk: int, block: int) -> bytes:
    return chunk.to_bytes(12, "big") + block.to_bytes(4, "big")
