from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from protocols.encoding.rlwe import PRIME
from protocols.masking import BLOCK_BYTES, CHUNK_BYTES, Mask, Work, apply_masks, expand, mask_key
from protocols.primitives import Engine
from protocols.ring import Ring, RingVector

WORD, SMALL, LARGE = Ring(1 << 32), Ring(40961), Ring(PRIME)
RINGS = [WORD, SMALL, LARGE]
KEY = bytes(range(16))


def keystream(key: bytes, chunk: int, block: int, count: int) -> bytes:
    counter = chunk.to_bytes(12, "big") + block.to_bytes(4, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(count))


def reference(ring: Ring, key: bytes, length: int) -> list[int]:
    """The expansion, word by word, straight from the specification at the head of ``masking``."""
    width = 4 if ring.modulus == 1 << 32 else 8
    per_chunk = (4 << 20) // width
    result: list[int] = []
    for chunk in range(-(-length // per_chunk)):
        count = min(per_chunk, length - chunk * per_chunk)
        stream = keystream(key, chunk, 2, count * width)
        words = (int.from_bytes(stream[i : i + width], "little") for i in range(0, len(stream), width))
        result += words if width == 4 else below(ring, words, spares(ring, key, chunk))
    return result


def below(ring: Ring, words: Iterator[int], spare: Iterator[int]) -> Iterator[int]:
    low = (1 << (ring.modulus - 1).bit_length()) - 1
    for word in words:
        yield word & low if word & low < ring.modulus else next(spare)


def spares(ring: Ring, key: bytes, chunk: int) -> Iterator[int]:
    low = (1 << (ring.modulus - 1).bit_length()) - 1
    block = 2 + 2**18
    while True:
        word = (
            int.from_bytes(keystream(key, chunk, block, 16)[:8], "little"),
            int.from_bytes(keystream(key, chunk, block, 16)[8:], "little"),
        )
        yield from (w & low for w in word if w & low < ring.modulus)
        block += 1


def random_vector(ring: Ring, length: int, seed: int = 3) -> RingVector:
    return np.random.default_rng(seed).integers(0, ring.modulus, length, np.uint64).astype(ring.dtype)


@settings(max_examples=30)
@given(st.sampled_from(RINGS), st.binary(min_size=16, max_size=16), st.integers(0, 3000))
def test_expansion_is_what_the_specification_says(ring: Ring, key: bytes, length: int) -> None:
    assert expand(ring, key, length).tolist() == reference(ring, key, length)


@pytest.mark.parametrize("ring", [WORD, LARGE])
@pytest.mark.parametrize("more", [-1, 0, 1, 40000])
def test_expansion_goes_on_rightly_across_a_chunk_of_4_mib(ring: Ring, more: int) -> None:
    boundary = CHUNK_BYTES // ring.dtype.itemsize
    ours = expand(ring, KEY, boundary + more)
    assert ours.dtype == ring.dtype and len(ours) == boundary + more
    around = slice(boundary - 50, boundary + 50)
    tail = reference_tail(ring, boundary, more)
    assert ours[around].tolist() == tail


def reference_tail(ring: Ring, boundary: int, more: int) -> list[int]:
    """The 50 elements before and up to 50 behind the boundary, without expanding what lies before."""
    width = ring.dtype.itemsize
    first = keystream(KEY, 0, 2, CHUNK_BYTES)[-50 * width :]
    second = keystream(KEY, 1, 2, 50 * width)
    words = np.frombuffer(first + second, ring.dtype) & np.array((1 << ring.bits) - 1, np.uint64).astype(ring.dtype)
    assert int(words.max()) < ring.modulus, "for this key no word near the boundary is rejected: p fills 54 bits nearly"
    return words.tolist()[: 50 + min(more, 50)] if more < 50 else words.tolist()


def test_expansion_of_a_small_prime_is_right_across_a_chunk_with_its_many_rejections() -> None:
    length = CHUNK_BYTES // 8 + 700
    ours = expand(SMALL, KEY, length)
    expected = reference_of_small(length)
    assert (ours == expected).all()
    assert int(ours.max()) < SMALL.modulus


def reference_of_small(length: int) -> np.ndarray:
    """As ``reference``, with numpy: rejected words take the acceptable spare words of their chunk in order."""
    chunks = []
    for chunk, count in ((0, CHUNK_BYTES // 8), (1, length - CHUNK_BYTES // 8)):
        words = np.frombuffer(keystream(KEY, chunk, 2, 8 * count), "<u8") & np.uint64(0xFFFF)
        spare = np.frombuffer(keystream(KEY, chunk, 2 + 2**18, 8 * count), "<u8") & np.uint64(0xFFFF)
        rejected = words >= SMALL.modulus
        assert 0.3 < rejected.mean() < 0.45  # 1 - 40961 / 65536 = 0.375
        words = words.copy()
        words[rejected] = spare[spare < SMALL.modulus][: rejected.sum()]
        chunks.append(words)
    return np.concatenate(chunks)


def test_known_masks() -> None:
    """Fixed for good: clients of different releases of one protocol version must agree on every bit."""
    assert expand(WORD, KEY, 3).tolist() == [1401411145, 2359729049, 1752861155]
    assert expand(LARGE, KEY, 3).tolist() == [10867131948717641, 13653049951816163, 679722298879417]
    assert expand(SMALL, KEY, 8).tolist() == [9054, 35299, 28758, 23888, 25392, 4741, 33435, 24128]


@pytest.mark.parametrize("ring", RINGS)
def test_a_mask_is_uniform(ring: Ring) -> None:
    """Kolmogorov-Smirnov on one fixed key: a right implementation fails for one key in a million, not for this one."""
    sample = expand(ring, KEY, 100_000).astype(np.float64) / ring.modulus
    assert stats.kstest(sample, "uniform").pvalue > 1e-6


@settings(max_examples=25)
@given(
    st.sampled_from(RINGS),
    st.integers(1, 20_000),
    st.lists(st.sampled_from([1, -1]), max_size=6),
    st.integers(0, 2**32),
)
def test_masks_add_what_they_expand_to(ring: Ring, length: int, signs: list[int], seed: int) -> None:
    keys = [bytes([i]) * 16 for i in range(len(signs))]
    vector = random_vector(ring, length, seed)
    expected = [int(x) for x in vector]
    for key, sign in zip(keys, signs, strict=True):
        expected = [
            (x + sign * int(m)) % ring.modulus for x, m in zip(expected, expand(ring, key, length), strict=True)
        ]
    apply_masks(vector, ring, [Mask(key, 1 if sign > 0 else -1) for key, sign in zip(keys, signs, strict=True)])
    assert vector.tolist() == expected


@pytest.mark.parametrize("ring", RINGS)
def test_more_masks_than_the_carrier_has_room_for_cancel(ring: Ring) -> None:
    """2100 masks of a 54-bit modulus pass the slack of 1023 twice."""
    vector = random_vector(ring, 5)
    before = vector.tolist()
    keys = [i.to_bytes(16, "big") for i in range(1050)]
    apply_masks(vector, ring, [Mask(key, 1) for key in keys] + [Mask(key, -1) for key in keys])
    assert vector.tolist() == before


@pytest.mark.parametrize("ring", RINGS)
def test_what_one_adds_and_the_other_takes_away_cancels_over_several_blocks(ring: Ring) -> None:
    length = 2 * BLOCK_BYTES // ring.dtype.itemsize + 17
    left, right = random_vector(ring, length, 1), random_vector(ring, length, 2)
    total = ((left.astype(object) + right.astype(object)) % ring.modulus).tolist()
    apply_masks(left, ring, [Mask(KEY, 1)])
    apply_masks(right, ring, [Mask(KEY, -1)])
    assert ((left.astype(object) + right.astype(object)) % ring.modulus).tolist() == total


def test_a_mask_key_depends_on_everything_that_must_agree() -> None:
    base: tuple[object, ...] = (bytes(32), "label", b"session", WORD, 10, (b"a", b"b"))
    others = (b"\x01" + bytes(31), "other", b"noisses", LARGE, 11, (b"a", b"c"))
    keys = {mask_key(*base)}  # type: ignore[arg-type]
    for index, other in enumerate(others):
        keys.add(mask_key(*(*base[:index], other, *base[index + 1 :])))  # type: ignore[arg-type]
    assert len(keys) == 1 + len(others)
    assert all(len(key) == 16 for key in keys)


def test_a_mask_does_not_print_its_key() -> None:
    key = os.urandom(16)
    assert repr(key)[2:-1] not in repr(Mask(key, 1))


@pytest.mark.parametrize("ring", [*RINGS, Ring(1 << 24), Ring(1 << 16)])
def test_every_engine_gives_the_same_bits(ring: Ring) -> None:
    length = CHUNK_BYTES // ring.dtype.itemsize + 333
    ours = [expand(ring, KEY, length, Work(engine)) for engine in Engine]
    assert all(np.array_equal(ours[0], other) for other in ours)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_what_masks_were_added_to_or_taken_from_is_below_the_modulus(bits: int) -> None:
    """Three bytes of a four-byte carrier count: without a last step the fourth would carry on."""
    ring = Ring(1 << bits)
    vector = ring.zeros(1000)
    for sign in (1, -1):
        apply_masks(vector, ring, [Mask(os.urandom(16), sign) for _ in range(3)])  # type: ignore[arg-type]
        assert int(vector.max()) < ring.modulus
    assert int(expand(ring, KEY, 1000).max()) < ring.modulus


def test_a_pool_shares_the_work_by_chunks_and_may_return_copies() -> None:
    """A pool of processes pickles spans: what it returns is not the vector's own memory."""
    length = 2 * CHUNK_BYTES // 4 + 99
    masks = [Mask(KEY, 1), Mask(bytes(16), -1)]
    alone, shared = (np.arange(length, dtype="<u4") for _ in range(2))
    apply_masks(alone, WORD, masks)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        apply_masks(shared, WORD, masks, Work(map=pool.map))
    assert np.array_equal(alone, shared)


def test_many_masks_that_are_taken_away_do_not_underflow_the_carrier() -> None:
    keys = [count.to_bytes(16, "big") for count in range(1200)]  # more than 2**64 / p, with every sum lazy
    vector = LARGE.zeros(5)
    apply_masks(vector, LARGE, [Mask(key, -1) for key in keys])
    expected = [-sum(int(expand(LARGE, key, 5)[i]) for key in keys) % LARGE.modulus for i in range(5)]
    assert vector.tolist() == expected
