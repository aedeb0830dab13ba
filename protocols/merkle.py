"""Hash trees: one digest for many parts, and for each part a short proof that it is among them.

The tree is that of RFC 9162, section 2.1: leaves and inner nodes are hashed with different prefixes, and an odd node
moves up unchanged. A long part is a tree of its own chunks, so that several cores can hash it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.base import Map
from protocols.errors import MalformedMessage

HASH_BYTES = 32
# Long enough that a chunk costs a core far more than handing it over does.
CHUNK_BYTES = 512 << 10
_LEAF, _NODE, _LONG = b"\0", b"\1", b"\2"


@dataclass(frozen=True)
class Tree:
    """All levels of a tree, leaves first, each as its hashes in one piece."""

    levels: tuple[bytes, ...]

    @classmethod
    def grow(cls, leaves: Sequence[bytes]) -> Tree:
        """The tree over at least one leaf hash."""
        levels = [list(leaves)]
        while len(level := levels[-1]) > 1:
            above = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            levels.append(above + level[2 * len(above) :])
        return cls(tuple(b"".join(level) for level in levels))

    @property
    def root(self) -> bytes:
        return self.levels[-1]

    def path(self, index: int) -> bytes:
        """What leads from leaf ``index`` to the root: the siblings on the way, leaf's first, in one piece."""
        siblings = []
        for level in self.levels[:-1]:
            start = (index ^ 1) * HASH_BYTES
            siblings.append(level[start : start + HASH_BYTES])  # empty where the node has no sibling
            index //= 2
        return b"".join(siblings)


def climb(leaf: bytes, index: int, leaves: int, path: bytes) -> bytes:
    """The root that ``path`` leads to. Raises ``MalformedMessage`` for a path of another length or no such leaf."""
    if not 0 <= index < leaves:
        raise MalformedMessage(f"no leaf {index} among {leaves}")
    used, size = 0, leaves
    while size > 1:
        if (index ^ 1) < size:
            sibling = path[used : used + HASH_BYTES]
            leaf = _node(sibling, leaf) if index % 2 else _node(leaf, sibling)
            used += HASH_BYTES
        index, size = index // 2, (size + 1) // 2
    if used != len(path):
        raise MalformedMessage(f"a proof of {len(path)} bytes where {used} were expected")
    return leaf


def leaf(part: bytes, map: Map = map) -> bytes:
    """The hash of one part: 32 bytes."""
    if len(part) <= CHUNK_BYTES:
        return _leaf(memoryview(part))
    view = memoryview(part)
    chunks = (view[start : start + CHUNK_BYTES] for start in range(0, len(part), CHUNK_BYTES))
    root = Tree.grow(list(map(_leaf, chunks))).root
    return hashlib.sha256(_LONG + len(part).to_bytes(8, "big") + root).digest()


def tree_of(parts: Sequence[bytes], map: Map = map) -> Tree:
    """The tree over whole parts; over none, that over one empty part."""
    return Tree.grow([leaf(part, map) for part in parts or (b"",)])


def _leaf(chunk: memoryview) -> bytes:
    state = hashlib.sha256(_LEAF)
    state.update(chunk)
    return state.digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
