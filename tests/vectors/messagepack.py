"""As much of MessagePack as docs/secagg.md, section 3, needs: for the naive implementation, which shares no code."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

Value = None | int | float | bytes | str | Sequence["Value"] | Mapping[str, "Value"]


def pack(value: Value) -> bytes:
    match value:
        case None:
            return b"\xc0"
        case int():
            return _packed_int(value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case bytes():
            return _sized(len(value), None, 0, (0xC4, 0xC5, 0xC6)) + value
        case str():
            text = value.encode()
            return _sized(len(text), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + text
        case Mapping():
            pairs = b"".join(pack(name) + pack(content) for name, content in value.items())
            return _sized(len(value), 0x80, 16, (None, 0xDE, 0xDF)) + pairs
        case _:
            return _sized(len(value), 0x90, 16, (None, 0xDC, 0xDD)) + b"".join(pack(each) for each in value)


def _packed_int(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    size = next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)
    return bytes([0xCC + size.bit_length() - 1]) + value.to_bytes(size, "big")


def _sized(length: int, fixed: int | None, fixed_below: int, codes: Sequence[int | None]) -> bytes:
    if fixed is not None and length < fixed_below:
        return bytes([fixed | length])
    for code, size in zip(codes, (1, 2, 4), strict=True):
        if code is not None and length < 1 << 8 * size:
            return bytes([code]) + length.to_bytes(size, "big")
    raise ValueError("too long")


def unpack(data: bytes) -> Any:
    """The one value in ``data``. The tests know its shape."""
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError("more than one value")
    return value


def _value(data: bytes, at: int) -> tuple[Value, int]:
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if 0x90 <= code < 0xA0 or code in (0xDC, 0xDD):
        count, at = (code & 15, at) if code < 0xA0 else _number(data, at, 2 << code - 0xDC)
        values = []
        for _ in range(count):
            value, at = _value(data, at)
            values.append(value)
        return values, at
    if 0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB:
        size, at = (code & 31, at) if code < 0xC0 else _number(data, at, 1 << code - 0xD9)
        return data[at : at + size].decode(), at + size
    if 0xC4 <= code <= 0xC6:
        size, at = _number(data, at, 1 << code - 0xC4)
        return data[at : at + size], at + size
    if 0xCC <= code <= 0xCF:
        return _number(data, at, 1 << code - 0xCC)
    raise ValueError(f"no record has a value of type {code:#x}")


def _number(data: bytes, at: int, size: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + size], "big"), at + size
