from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding.rlwe import PRIME
from protocols.errors import ConfigurationError, MalformedMessage
from protocols.ring import Ring, RunningSum

RINGS = [Ring(1 << 32), Ring(1 << 24), Ring(1 << 16), Ring(PRIME), Ring(40961), Ring(3), Ring((1 << 54) - 1)]
rings = st.sampled_from(RINGS)


def vectors(ring: Ring, length: int) -> st.SearchStrategy[np.ndarray]:
    edges = st.sampled_from([0, 1, ring.modulus - 1])
    elements = st.one_of(edges, st.integers(0, ring.modulus - 1))
    return st.lists(elements, min_size=length, max_size=length).map(lambda values: np.array(values, ring.dtype))


@pytest.mark.parametrize("modulus", [0, 1, 2, 4, 1 << 31, 1 << 33, 1 << 54, (1 << 54) + 1, -3])
def test_other_moduli_are_refused(modulus: int) -> None:
    with pytest.raises(ConfigurationError):
        Ring(modulus)


@given(rings, st.data())
def test_a_packed_vector_comes_back(ring: Ring, data: st.DataObject) -> None:
    vector = data.draw(vectors(ring, data.draw(st.integers(0, 9))))
    packed = ring.pack(vector)
    assert len(packed) == len(vector) * ring.item_bytes
    assert ring.unpack(packed, len(vector)).tolist() == vector.tolist()


def test_packed_bytes_are_little_endian_and_as_few_as_the_modulus_needs() -> None:
    assert [ring.item_bytes for ring in RINGS] == [4, 3, 2, 7, 2, 1, 7]
    assert Ring(PRIME).pack(np.array([1, 0x01020304050607], np.uint64)).hex() == "01000000000000" + "07060504030201"
    assert Ring(1 << 32).pack(np.array([1, 0x01020304], np.uint32)).hex() == "01000000" + "04030201"


@given(rings, st.integers(0, 5), st.integers(-3, 3).filter(bool))
def test_packed_vectors_of_another_length_are_malformed(ring: Ring, length: int, more: int) -> None:
    with pytest.raises(MalformedMessage):
        ring.unpack(bytes(max(0, length * ring.item_bytes + more)) or b"x", length)


@pytest.mark.parametrize("ring", [ring for ring in RINGS if not ring.wraps and ring.modulus % 256])
def test_a_value_at_the_modulus_is_malformed(ring: Ring) -> None:
    good = (ring.modulus - 1).to_bytes(ring.item_bytes, "little")
    bad = ring.modulus.to_bytes(ring.item_bytes, "little")
    assert ring.unpack(good * 3, 3).tolist() == [ring.modulus - 1] * 3
    with pytest.raises(MalformedMessage, match="outside"):
        ring.unpack(good + bad + good, 3)
    with pytest.raises(MalformedMessage, match="outside"):
        ring.unpack(b"\xff" * ring.item_bytes, 1)


@pytest.mark.parametrize("ring", RINGS)
def test_a_running_sum_of_the_largest_elements_never_overflows(ring: Ring) -> None:
    terms = 2500  # beyond the slack of a 54-bit modulus twice
    total = RunningSum(ring, 2)
    largest = np.array([ring.modulus - 1, 1], ring.dtype)
    for _ in range(terms):
        total.add(largest)
    expected = [terms * (ring.modulus - 1) % ring.modulus, terms % ring.modulus]
    assert total.finish().tolist() == expected
    assert total.finish().tolist() == expected
    total.add(largest)
    assert total.finish().tolist() == [(terms + 1) * (ring.modulus - 1) % ring.modulus, (terms + 1) % ring.modulus]


@given(rings, st.data())
def test_a_running_sum_is_the_sum(ring: Ring, data: st.DataObject) -> None:
    terms = data.draw(st.lists(vectors(ring, 3), max_size=8))
    total = RunningSum(ring, 3)
    for term in terms:
        total.add(term)
    assert total.finish().tolist() == [sum(int(term[i]) for term in terms) % ring.modulus for i in range(3)]


@pytest.mark.parametrize("ring", RINGS)
def test_the_slack_fits_the_carrier(ring: Ring) -> None:
    if not ring.wraps:
        assert (ring.slack + 1) * (ring.modulus - 1) < 1 << 64
