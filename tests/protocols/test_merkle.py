"""Every part of a tree has one short proof, and nothing else does."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols.errors import MalformedMessage
from protocols.merkle import CHUNK_BYTES, HASH_BYTES, Tree, climb, leaf, tree_of

# No two equal: equal parts at two places are proven at either, and rightly so.
distinct_parts = st.lists(st.binary(max_size=12), min_size=1, max_size=40, unique=True)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def reaches(root: bytes, start: bytes, index: int, leaves: int, path: bytes) -> bool:
    try:
        return climb(start, index, leaves, path) == root
    except MalformedMessage:
        return False


@given(distinct_parts)
def test_every_path_climbs_to_the_root(parts: list[bytes]) -> None:
    tree = tree_of(parts)
    for index, part in enumerate(parts):
        assert climb(leaf(part), index, len(parts), tree.path(index)) == tree.root


@given(distinct_parts, st.data())
def test_no_other_leaf_or_index_climbs_to_the_root(parts: list[bytes], data: st.DataObject) -> None:
    """Whatever path leads there from one leaf of so many, at one place."""
    tree = tree_of(parts)
    right, start = (data.draw(st.integers(0, len(parts) - 1)) for _ in range(2))
    index = data.draw(st.integers(-2, len(parts) + 1))
    proven = reaches(tree.root, leaf(parts[start]), index, len(parts), tree.path(right))
    assert proven == (start == index == right)


@given(distinct_parts, st.binary(max_size=12), st.data())
def test_what_is_no_part_has_no_proof(parts: list[bytes], other: bytes, data: st.DataObject) -> None:
    assume(other not in parts)
    tree, index = tree_of(parts), data.draw(st.integers(0, len(parts) - 1))
    assert not reaches(tree.root, leaf(other), index, len(parts), tree.path(index))


@given(distinct_parts, st.data())
def test_no_other_path_climbs_to_the_root(parts: list[bytes], data: st.DataObject) -> None:
    tree, index = tree_of(parts), data.draw(st.integers(0, len(parts) - 1))
    path = tree.path(index)
    flipped = st.integers(0, 8 * len(path) - 1).map(lambda bit: flip(path, bit)) if path else st.nothing()
    cut = st.integers(0, len(path) - 1).map(lambda length: path[:length]) if path else st.nothing()
    longer = st.binary(min_size=1, max_size=2 * HASH_BYTES).map(lambda more: path + more)
    other = data.draw(st.one_of(flipped, cut, longer, st.binary(max_size=6 * HASH_BYTES)))
    assume(other != path)
    assert not reaches(tree.root, leaf(parts[index]), index, len(parts), other)


def flip(path: bytes, bit: int) -> bytes:
    changed = bytearray(path)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(distinct_parts, st.data())
def test_a_path_has_a_hash_for_each_level_with_a_sibling_and_another_count_with_other_levels_is_refused(
    parts: list[bytes], data: st.DataObject
) -> None:
    """Which count it is the verifier must know: where the levels are alike, a root says nothing about it."""
    tree, index = tree_of(parts), data.draw(st.integers(0, len(parts) - 1))
    path = tree.path(index)
    assert len(path) == HASH_BYTES * siblings(index, len(parts))
    count = data.draw(st.integers(-1, 90))
    if index >= count or siblings(index, count) != siblings(index, len(parts)):
        with pytest.raises(MalformedMessage):
            climb(leaf(parts[index]), index, count, path)


def siblings(index: int, leaves: int) -> int:
    """How many levels of a tree have a node beside the one above leaf ``index``, from RFC 9162, section 2.1.1."""
    if leaves == 1:
        return 0
    split = 1 << (leaves - 1).bit_length() - 1
    return 1 + (siblings(index, split) if index < split else siblings(index - split, leaves - split))


@given(st.lists(st.binary(max_size=3), max_size=9), st.lists(st.binary(max_size=3), max_size=9))
def test_other_parts_have_another_root(one: list[bytes], other: list[bytes]) -> None:
    """Their number and order count too; only none and one empty part are alike, as the tree over none says."""
    assert (tree_of(one).root == tree_of(other).root) == ((one or [b""]) == (other or [b""]))


@pytest.mark.parametrize("index", [-1, -2, 3, 4, 2**70])
def test_a_leaf_that_is_not_there_has_no_path(index: int) -> None:
    """A negative index too, which a list would take from its end."""
    tree = tree_of([b"a", b"b", b"c"])
    with pytest.raises(MalformedMessage, match="no leaf"):
        climb(leaf(b"c"), index, 3, tree.path(2))


@pytest.mark.parametrize("leaves", [0, -1])
def test_a_tree_of_no_leaves_has_no_path(leaves: int) -> None:
    with pytest.raises(MalformedMessage, match="no leaf"):
        climb(leaf(b""), 0, leaves, b"")


def test_a_count_beyond_any_tree_is_refused_at_once() -> None:
    with pytest.raises(MalformedMessage, match="proof"):
        climb(leaf(b"a"), 0, 2**64 - 1, tree_of([b"a", b"b"]).path(0))


def test_the_tree_is_that_of_rfc_9162() -> None:
    """Section 2.1: leaves behind a zero byte, nodes behind a one, the odd node up unchanged."""
    a, b, c = (sha(b"\0" + part) for part in (b"a", b"b", b"c"))
    assert [leaf(part) for part in (b"a", b"b", b"c")] == [a, b, c]
    assert tree_of([b"a"]).root == a
    assert tree_of([b"a", b"b", b"c"]).root == sha(b"\1" + sha(b"\1" + a + b) + c)
    # Of one empty leaf: RFC 6962's test vectors.
    empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree_of([]).root.hex() == leaf(b"").hex() == empty


def test_an_inner_node_is_no_leaf() -> None:
    """Or two hashes in one part would pass for the two parts behind them."""
    a, b = leaf(b"a"), leaf(b"b")
    for part in (a + b, b"\1" + a + b, b"\0" + a + b):
        assert tree_of([part]).root != tree_of([b"a", b"b"]).root


# ---- long parts


LONG = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"and a little more"


@settings(max_examples=8)
@given(st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, len(LONG)]))
def test_a_part_hashes_to_the_same_with_and_without_threads(size: int) -> None:
    part = LONG[:size]
    with ThreadPoolExecutor(3) as pool:
        assert leaf(part, pool.map) == leaf(part)
        assert tree_of([part, b"x", part], pool.map) == tree_of([part, b"x", part])


def test_a_long_part_is_a_tree_of_its_chunks_with_a_prefix_and_a_length_of_its_own() -> None:
    chunks = [LONG[start : start + CHUNK_BYTES] for start in range(0, len(LONG), CHUNK_BYTES)]
    root = tree_of(chunks).root
    assert leaf(LONG) == sha(b"\2" + len(LONG).to_bytes(8, "big") + root) != root


def test_two_parts_of_a_chunk_are_not_one_of_two_chunks() -> None:
    """512 KiB twice, and 1 MiB: the same bytes, cut otherwise."""
    part = LONG[:CHUNK_BYTES]
    assert CHUNK_BYTES == 512 << 10
    roots = {tree_of(body).root for body in ([part, part], [part + part], [part + part, b""], [part + part[:-1]])}
    assert len(roots) == 4


@pytest.mark.parametrize("place", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, len(LONG) - 1])
def test_every_byte_of_a_long_part_counts(place: int) -> None:
    changed = LONG[:place] + bytes([LONG[place] ^ 1]) + LONG[place + 1 :]
    assert len({leaf(LONG), leaf(changed), leaf(LONG[:place]), leaf(LONG + b"\0")}) == 4


def test_a_tree_holds_each_level_in_one_piece() -> None:
    tree = Tree.grow([bytes([i]) * HASH_BYTES for i in range(5)])
    assert [len(level) // HASH_BYTES for level in tree.levels] == [5, 3, 2, 1]
