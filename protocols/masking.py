"""Masks that cancel: keystreams expanded to ring elements and added block by block, in place.

Expansion, for a 16-byte AES key: the output is cut into chunks of 4 MiB of carrier words. Chunk c is AES-128-CTR
from counter block BE96(c) || BE32(2), read as little-endian words. Modulo a power of two the low bits of a word are an
element. Modulo p a word's low bits (as many as p has) are an element if below p; a rejected word is replaced, in order,
by the next acceptable word of the same chunk's spare stream, which starts at counter BE96(c) || BE32(2 + 2**18).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from protocols.base import Map
from protocols.primitives import Engine, Keystream, derive
from protocols.ring import Ring, RingVector

CHUNK_BYTES = 4 << 20
# A block of the output and one of keystream stay in the second-level cache while every mask passes over it.
BLOCK_BYTES = 256 << 10
_SPARE_BYTES = 1024


@dataclass(frozen=True)
class Mask:
    """A mask to add or to take away: the AES key of its keystream, and its sign."""

    key: bytes = field(repr=False)
    sign: Literal[1, -1]


@dataclass(frozen=True)
class Work:
    """How the heavy work is done. Changes speed, never a bit of the result.

    ``engine`` makes keystreams, ``map`` shares them, and CKKS, out by chunk; ``threads`` shares out hashing.
    """

    engine: Engine = Engine.CTR
    threads: Map = map
    map: Map = map


@dataclass(frozen=True)
class Span:
    """One chunk of a vector and its number: what a worker needs, besides the masks."""

    chunk: int
    part: RingVector = field(repr=False)


def mask_key(seed: bytes, label: str, session: bytes, ring: Ring, length: int, pair: tuple[bytes, bytes]) -> bytes:
    """The AES key of one mask, bound to everything that must agree for it to cancel."""
    size = length.to_bytes(8, "big")
    return derive(seed, label, session, ring.modulus.to_bytes(8, "big"), size, *pair, length=16)


def apply_masks(vector: RingVector, ring: Ring, masks: Sequence[Mask], work: Work = Work()) -> None:
    """Add all masks to a reduced vector, in place; the result is reduced."""
    size = CHUNK_BYTES // ring.dtype.itemsize
    spans = [Span(chunk, vector[start : start + size]) for chunk, start in enumerate(range(0, len(vector), size))]
    for span, masked in zip(spans, work.map(partial(mask_span, ring, tuple(masks), work.engine), spans), strict=True):
        if not np.may_share_memory(masked, span.part):
            span.part[:] = masked


def expand(ring: Ring, key: bytes, length: int, work: Work = Work()) -> RingVector:
    """``length`` uniform ring elements from a keystream."""
    vector = ring.zeros(length)
    apply_masks(vector, ring, [Mask(key, 1)], work)
    return vector


def mask_span(ring: Ring, masks: tuple[Mask, ...], engine: Engine, span: Span) -> RingVector:
    """Add all masks to one chunk, in place, and return it."""
    zeros = memoryview(bytes(min(BLOCK_BYTES, span.part.nbytes)))
    scratch = np.empty(len(zeros) // ring.dtype.itemsize, ring.dtype)
    if ring.wraps:
        words = [(Keystream(mask.key, _counter(span.chunk), engine), mask.sign) for mask in masks]
        _add_words(ring, span.part, scratch, zeros, words)
    else:
        streams = [(_Residues(ring, mask.key, span.chunk, engine), mask.sign) for mask in masks]
        _add_residues(ring, span.part, scratch, zeros, streams)
    return span.part


def _add_words(
    ring: Ring, part: RingVector, scratch: RingVector, zeros: memoryview, streams: Sequence[tuple[Keystream, int]]
) -> None:
    """The hot loop: one keystream read and one addition for each mask, on a block that stays in the cache."""
    steps = [(stream.read_into, np.add if sign > 0 else np.subtract) for stream, sign in streams]
    for start in range(0, len(part), len(scratch)):
        block = part[start : start + len(scratch)]
        words = scratch[: len(block)]
        source, target = zeros[: block.nbytes], words.view(np.uint8).data
        for read_into, accumulate in steps:
            read_into(source, target)
            accumulate(block, words, out=block)
        ring.reduce(block)


def _add_residues(
    ring: Ring, part: RingVector, scratch: RingVector, zeros: memoryview, streams: Sequence[tuple[_Residues, int]]
) -> None:
    """As above modulo p. What is to be taken away is summed apart, since the carrier cannot go below zero."""
    batch = ring.slack // 2 - 1  # block + batch added and batch taken away stay below 2**64
    for start in range(0, len(part), len(scratch)):
        block = part[start : start + len(scratch)]
        words = scratch[: len(block)]
        for first in range(0, len(streams), batch):
            away = ring.zeros(len(block))
            taken = 0
            for stream, sign in streams[first : first + batch]:
                stream.read(words, zeros)
                taken += sign < 0
                target = block if sign > 0 else away
                np.add(target, words, out=target)
            if taken:
                np.subtract(np.uint64(taken * ring.modulus), away, out=away)
                np.add(block, away, out=block)
            ring.reduce(block)


class _Residues:
    """One mask modulo p over one chunk, block after block."""

    def __init__(self, ring: Ring, key: bytes, chunk: int, engine: Engine) -> None:
        self._low = np.uint64((1 << ring.bits) - 1)
        self._modulus = np.uint64(ring.modulus)
        self._key = key
        self._chunk = chunk
        self._main = Keystream(key, _counter(chunk), engine)
        self._spares = self._spare_words()

    def read(self, out: RingVector, zeros: memoryview) -> None:
        self._main.read_into(zeros[: out.nbytes], out.view(np.uint8).data)
        np.bitwise_and(out, self._low, out=out)
        if out.max() >= self._modulus:
            for index in np.flatnonzero(out >= self._modulus):
                out[index] = next(self._spares)

    def _spare_words(self) -> Iterator[np.uint64]:
        stream = Keystream(self._key, _counter(self._chunk, 2 + CHUNK_BYTES // 16))
        zeros, raw = memoryview(bytes(_SPARE_BYTES)), bytearray(_SPARE_BYTES)
        while True:
            stream.read_into(zeros, memoryview(raw))
            words = np.frombuffer(raw, "<u8") & self._low
            yield from words[words < self._modulus]


def _counter(chunk: int, block: int = 2) -> bytes:
    return chunk.to_bytes(12, "big") + block.to_bytes(4, "big")
