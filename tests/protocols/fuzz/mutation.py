"""Changed messages: raw bytes that are flipped, cut and joined, and MessagePack of which single fields are changed.

Not a test. All choices come from the generator that is handed in, so that a seed repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from protocols.aggregation.messages import Envelope, Header, envelope
from protocols.primitives import Identity
from protocols.wire import decode, encode

Rng = np.random.Generator
# What MessagePack decodes to.
Tree = Any
PREFIX_BYTES = 4
# Where lengths and headers of MessagePack change their meaning, and what overflows.
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC4, 0xC6, 0xC7, 0xD9, 0xDB, 0xDC, 0xDD, 0xDF, 0xFF)
_NUMBERS = (0, 1, -1, 5, 255, 1 << 31, 1 << 32, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
_TEXTS = ("", "c0", "c1", "c9", "\0", "é" * 9, "x" * 300)


def mutated(rng: Rng, message: bytes, others: Sequence[bytes]) -> bytes:
    """The message, changed once or a few times; now and then as it is, or bytes that have nothing to do with it."""
    kind = rng.random()
    if kind < 0.05:
        return rng.bytes(int(rng.integers(0, 200)))
    if kind < 0.1:
        return message
    for _ in range(int(rng.integers(1, 4))):
        message = field_changed(rng, message) if rng.random() < 0.5 else raw(rng, message, others)
    return message


# ---- bytes


def raw(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    """One change that knows nothing of the format."""
    other = others[int(rng.integers(len(others)))] if others else data
    changes: list[Callable[[], bytes]] = [
        lambda: _flipped(rng, data),
        lambda: data[: _place(rng, data)],
        lambda: data[_place(rng, data) :],
        lambda: data[: _place(rng, data)] + other[_place(rng, other) :],
        lambda: _written_over(rng, data, rng.bytes(int(rng.integers(1, 9)))),
        lambda: _written_over(rng, data, bytes([int(rng.choice(_BYTES))])),
        lambda: _written_over(rng, data, b"\xff" * int(rng.choice((1, 2, 4, 8)))),
        lambda: _slice_moved(rng, data, keep=True),
        lambda: _slice_moved(rng, data, keep=False),
        lambda: data + rng.bytes(int(rng.integers(1, 40))),
        lambda: other,
    ]
    return changes[int(rng.integers(len(changes)))]()


def _place(rng: Rng, data: bytes) -> int:
    return int(rng.integers(0, len(data) + 1))


def _flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if changed:
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _written_over(rng: Rng, data: bytes, value: bytes) -> bytes:
    place = _place(rng, data)
    return data[:place] + value + data[place + len(value) :]


def _slice_moved(rng: Rng, data: bytes, keep: bool) -> bytes:
    (start, end), to = sorted((_place(rng, data), _place(rng, data))), _place(rng, data)
    rest = data if keep else data[:start] + data[end:]
    return rest[:to] + data[start:end] + rest[to:]


# ---- fields


def field_changed(rng: Rng, message: bytes) -> bytes:
    """One field changed, inside sealed-off bytes too, in a message (or a bare body) whose framing stays whole."""
    framed = message[:2] == b"SF"
    head, body = (message[:PREFIX_BYTES], message[PREFIX_BYTES:]) if framed else (b"", message)
    tree = _opened(body)
    return message if tree is None else head + msgspec.msgpack.encode(changed(rng, tree))


def _opened(data: bytes) -> Tree:
    """The array in these bytes; None if there is none."""
    try:
        tree = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return tree if isinstance(tree, list) else None


def changed(rng: Rng, tree: Tree) -> Tree:
    """One leaf or one list of a tree changed."""
    match tree:
        case list() if tree and rng.random() < 0.8:
            place = int(rng.integers(len(tree)))
            return [*tree[:place], changed(rng, tree[place]), *tree[place + 1 :]]
        case list():
            return _list_changed(rng, tree)
        case bytes():
            return _bytes_changed(rng, tree)
        case str():
            return _other_type(rng) if rng.random() < 0.1 else str(rng.choice(_TEXTS))
        case bool() | float() | None:
            return _other_type(rng)
        case int():
            return _other_type(rng) if rng.random() < 0.1 else _number(rng, tree)
        case _:
            return tree


def _list_changed(rng: Rng, items: list[Tree]) -> Tree:
    place = int(rng.integers(len(items) + 1))
    ways: list[Tree] = [
        items[:place] + items[place + 1 :],
        items[:place] + items[place : place + 1] + items[place:],
        items[::-1],
        [],
        items + items,
        [*items, _other_type(rng)],
        _other_type(rng),
    ]
    return ways[int(rng.integers(len(ways)))]


def _bytes_changed(rng: Rng, data: bytes) -> Tree:
    inner = _opened(data) if rng.random() < 0.7 else None
    if inner is not None:
        return msgspec.msgpack.encode(changed(rng, inner))
    ways = [b"", bytes(len(data)), b"\xff" * len(data), rng.bytes(len(data)), _flipped(rng, data), raw(rng, data, ())]
    return _other_type(rng) if rng.random() < 0.05 else ways[int(rng.integers(len(ways)))]


def _number(rng: Rng, number: int) -> int:
    ways = [*_NUMBERS, min(number + 1, (1 << 64) - 1), max(number - 1, -(1 << 63))]
    return ways[int(rng.integers(len(ways)))]


def _other_type(rng: Rng) -> Tree:
    ways: list[Tree] = [None, True, 0, -1, 1.5, float("nan"), "", b"", [], {}, {"a": 1}, [[[]]]]
    return ways[int(rng.integers(len(ways)))]


# ---- with a member's own signature


def resigned(rng: Rng, reply: bytes, identity: Identity) -> bytes:
    """What a dishonest member could say in place of this reply of its own: other fields, rightly signed."""
    honest = decode(reply, Envelope)
    header = msgspec.msgpack.decode(honest.signed.header, type=Header)
    if rng.random() < 0.15:
        return encode(envelope(identity, msgspec.structs.replace(header, **_fields(rng, header)), honest.parts))
    parts = list(honest.parts)
    while tuple(parts) == honest.parts:
        parts = _parts_changed(rng, parts)
    return encode(envelope(identity, header, parts))


def _fields(rng: Rng, header: Header) -> dict[str, Tree]:
    """Everything but who speaks can be signed by whom it pleases."""
    ways: list[dict[str, Tree]] = [
        {"session": rng.bytes(32)},
        {"step": int(rng.integers(-1, 14))},
        {"keys": _flipped(rng, header.keys) or b"x"},
        {"seed": rng.bytes(int(rng.integers(0, 40)))},
    ]
    return ways[int(rng.integers(len(ways)))]


def _parts_changed(rng: Rng, parts: list[bytes]) -> list[bytes]:
    place = int(rng.integers(len(parts) + 1))
    if rng.random() < 0.8 and parts:
        place %= len(parts)
        part = _bytes_changed(rng, parts[place])
        return [*parts[:place], part if isinstance(part, bytes) else b"", *parts[place + 1 :]]
    ways = [parts[:place] + parts[place + 1 :], [*parts, rng.bytes(9)], parts[::-1], [], parts[:1] + parts]
    return ways[int(rng.integers(len(ways)))]
