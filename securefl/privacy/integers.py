"""Random integers of a given law, exact to float64's precision, from cryptographic bytes: rejection under equal tiles.

The law's bars are grouped in bins of 2^shift integers. Tiles, each one bin wide and all equally high, are stacked until
they cover every bar of their bin (the strips of Ahrens and Dieter, 1989, cut to equal area as in Marsaglia and Tsang's
ziggurat, 2000). Some bits of a word choose a tile and others an integer in its bin. A tile wholly below the bars, as
about 96 in 100 are, accepts at once; in another the height is drawn too and compared with the bar. What lies beyond the
last bin on either side has one tile, which falls off geometrically, as a log-concave law does or faster.

Floats only decide how often an integer is accepted, never which one it is. So probabilities are right for each single
integer, however many there are, where rounding a float to integers is wrong by 2^-53 of a float in so many of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.primitives import Keystream, derive

Random = Callable[[int], bytes]
"""``random(k)`` returns k bytes. Guarantees hold only if they are unpredictable to whoever sees the output."""

SEED_BYTES = 32

_BLOCK = 1 << 14  # words, of which some arrays of this length stay in the second-level cache
_ZEROS = memoryview(bytes(8 * _BLOCK))
_UNIT = 2.0**-53  # the step of a uniform whose every value float64 holds exactly
_MARGIN = 2.0**-40  # more than the error of a bar

_TILE_BITS = 14
_TILES = 1 << _TILE_BITS
_BINS = 512  # on each side: 8 deviations and more
_LEFT, _RIGHT = (_TILES - 2, _TILES - 1)


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover a vector of ``count`` elements, short enough that work on one stays in the cache."""
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


class Words:
    """A stream of uniform 64-bit words, for one call or one training: AES-128-CTR under a key derived from 32 fresh
    bytes, which are read when the first word is asked for. ``label`` says what the words are for.

    Nothing outlives that, so nothing repeats after a restart; a process that forks meanwhile must go on in one of the
    two only. What n words, of one stream, can be told from true randomness by is the advantage against AES-128 plus
    n^2 / 2^131, since its blocks never repeat.
    """

    def __init__(self, label: str, random: Random) -> None:
        self._label, self._random = label, random
        self._stream: Keystream | None = None

    def fill(self, words: NDArray[np.uint64]) -> None:
        """Overwrite ``words``, a contiguous vector, with the next ones.

        Raises ``ValueError`` where the random source returns too few bytes.
        """
        if self._stream is None:
            self._stream = self._begun()
        for block in blocks(len(words)):
            target = words[block].view(np.uint8).data
            self._stream.read_into(_ZEROS[: target.nbytes], target)

    def _begun(self) -> Keystream:
        seed = self._random(SEED_BYTES)
        if len(seed) != SEED_BYTES:
            raise ValueError(f"the random source returned {len(seed)} bytes of {SEED_BYTES}")
        return Keystream(derive(seed, self._label, length=16), bytes(16))

    def take(self, count: int) -> NDArray[np.uint64]:
        """The next ``count`` words."""
        words = np.empty(count, "<u8")
        self.fill(words)
        return words

    def units(self, count: int) -> NDArray[np.float64]:
        """``count`` multiples of 2^-53 in [0, 1)."""
        values: NDArray[np.float64] = np.multiply(self.take(count) >> np.uint64(11), _UNIT)
        return values

    def exponentials(self, count: int) -> NDArray[np.float64]:
        """``count`` exponential variates of mean 1: -log of uniforms of 128 bits, so that they reach 88."""
        high, low = self.take(2 * count).reshape(2, count)
        values: NDArray[np.float64] = -np.log(high * 2.0**-64 + (low + 1.0) * 2.0**-128)
        return values


class Law(Hashable, Protocol):
    """A log-concave law of integers, symmetric about 0 or -1/2. Hashable, since tables are cached."""

    @property
    def deviation(self) -> float:
        """The standard deviation, at most 2^51."""
        ...

    def log_ratio(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        """log(P(value) / P(0)) of each value, at most 0 and finite."""
        ...


@dataclass(frozen=True, eq=False)
class _Table:
    """Tiles of one law, which are public: they depend on the law and on no random byte.

    In order: ``full`` tiles below the bars; partial ones up to ``partial``; empty ones; the left and the right tail.
    Heights are in tiles: 0 has the bar ``height``.
    """

    law: Law
    shift: int  # a bin holds 2**shift integers
    height: int
    full: int
    partial: int
    starts: NDArray[np.int64]  # of each tile, its bin's first integer
    levels: NDArray[np.float64]  # of each partial tile, its lower edge
    reach: int  # bins with tiles, on each side
    decay: float  # of the envelope of the tails, in log per bin


def draw(law: Law, count: int, words: Words) -> NDArray[np.int64]:
    """``count`` independent integers of ``law``.

    An integer whose probability is above 1e-40 of the mode's has the probability ``exp(law.log_ratio)``, normalised,
    within a factor 1 +- 2^-41, besides the error of ``law.log_ratio``; all others together have less than 1e-38. In a
    tile, heights are compared to 1 part in 2^51. In a tail, logarithms up to log(1e40) = 92 are off by a few 2^-47, and
    a bin's share is the difference of two exponentials, of which it is 1/17 or more in laws near to normal: 2^-42.
    """
    table = _table(law)
    # About 2 in 100 are rejected; with so many spares a second draw is rare.
    candidates = np.empty(count + count // 32 + 16, np.int64)
    rejected = _settle(table, candidates, *_throw(table, candidates, words), words)
    values, spares = candidates[:count], np.delete(candidates[count:], rejected[rejected >= count] - count)
    missing = rejected[rejected < count]
    values[missing[: len(spares)]] = spares[: len(missing)]
    if len(missing) > len(spares):
        values[missing[len(spares) :]] = draw(law, len(missing) - len(spares), words)
    return values


def _throw(table: _Table, values: NDArray[np.int64], words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A tile and an integer of its bin for each value; where and which are the tiles that cannot accept at once."""
    most = min(_BLOCK, len(values))
    scratch, chosen, late = np.empty(most, "<u8"), np.empty(most, np.int64), np.empty(most, np.bool_)
    mask = np.uint64((1 << table.shift) - 1)
    where, which = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in blocks(len(values)):
        block = values[part]
        size = len(block)
        word, tile = scratch[:size], chosen[:size]
        words.fill(word)
        np.right_shift(word, np.uint64(64 - _TILE_BITS), out=tile.view(np.uint64))
        np.take(table.starts, tile, out=block, mode="clip")
        np.bitwise_and(word, mask, out=word)
        np.add(block, word.view(np.int64), out=block)
        rare = np.flatnonzero(np.greater_equal(tile, table.full, out=late[:size]))
        where.append(rare + part.start)
        which.append(tile[rare])
    return np.concatenate(where), np.concatenate(which)


def _settle(
    table: _Table, values: NDArray[np.int64], rare: NDArray[np.int64], tiles: NDArray[np.int64], words: Words
) -> NDArray[np.int64]:
    """Accept or reject what fell into tiles that do not accept at once; where it was rejected."""
    in_part, in_tail = tiles < table.partial, tiles >= _LEFT
    where = rare[in_part]
    bars = table.height * np.exp(table.law.log_ratio(values[where]))
    rejected = where[table.levels[tiles[in_part] - table.full] + words.units(len(where)) >= bars]
    parts = [rejected, rare[~(in_part | in_tail)]]
    if in_tail.any():
        where = rare[in_tail]
        values[where], accepted = _tails(table, values[where], tiles[in_tail] == _LEFT, words)
        parts.append(where[~accepted])
    return np.concatenate(parts)


def _tails(
    table: _Table, offsets: NDArray[np.int64], left: NDArray[np.bool_], words: Words
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Integers beyond the last bin on either side, given their places in a bin; which of them are accepted."""
    beyond = np.floor(words.exponentials(len(offsets)) / table.decay).astype(np.int64)
    found = ((table.reach + beyond) << table.shift) + offsets
    found = np.where(left, ~found, found)
    # The tile's area is 1, shared out over bins by (1 - exp(-decay)) * exp(-decay * beyond).
    share = math.log(table.height) - math.log(-math.expm1(-table.decay))
    bars = share + table.law.log_ratio(found) + table.decay * beyond
    return found, -words.exponentials(len(offsets)) < bars


@lru_cache(maxsize=16)
def _table(law: Law) -> _Table:
    """Takes about a millisecond. Bins are 1/64 to 1/32 of a deviation wide, or one integer."""
    shift = max(0, math.frexp(law.deviation)[1] - 6)
    firsts = np.arange(-_BINS, _BINS, dtype=np.int64) << shift
    ends = law.log_ratio(np.stack([firsts, firsts + (1 << shift) - 1]))
    # A whole number, so that machines whose exponentials differ in the last bit have the same tiles.
    height = bisect_right(range(1, _TILES), _TILES, key=lambda height: _needed(ends, height))
    reach = _reach(ends, height)
    bins = slice(_BINS - reach, _BINS + reach)
    low, high = _bars(ends[:, bins], height)
    starts = [np.repeat(firsts[bins], low), np.repeat(firsts[bins], high - low)]
    starts.append(np.zeros(_TILES - int(high.sum()), np.int64))
    levels = np.concatenate([np.arange(first, last, dtype=np.float64) for first, last in zip(low, high, strict=True)])
    full = int(low.sum())
    decay = float(_decays(ends)[reach - 1])
    return _Table(law, shift, height, full, full + len(levels), np.concatenate(starts), levels, reach, decay)


def _needed(ends: NDArray[np.float64], height: int) -> int:
    """How many tiles there are if 0 has the bar ``height``."""
    reach = _reach(ends, height)
    return int(_bars(ends[:, _BINS - reach : _BINS + reach], height)[1].sum()) + _TILES - _LEFT


def _bars(ends: NDArray[np.float64], height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many tiles are below all bars of a bin, and how many cover them. Bars are highest at one end."""
    low, high = np.sort(height * np.exp(ends), axis=0)
    return np.floor(low * (1 - _MARGIN)).astype(np.int64), np.ceil(high * (1 + _MARGIN)).astype(np.int64)


def _decays(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much bars fall, in log, from each bin on the right to the next: from there on by no less."""
    return -np.diff(ends[0, _BINS:])


def _reach(ends: NDArray[np.float64], height: int) -> int:
    """The first bin on the right from which on the envelope's area, bars * (1 + e^-decay + ...), fits in one tile."""
    bars = height * np.exp(ends[0, _BINS + 1 :])
    return 1 + int(np.argmax(bars <= -np.expm1(-_decays(ends))))
