"""Typed messages to bytes and back: MessagePack arrays, strict, versioned and limited in size."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import msgspec

from protocols.errors import MalformedMessage

VERSION = 1
_MAGIC = b"SF" + bytes([VERSION])
_PREFIX_BYTES = 4
# One message carries at most a packed vector of 1e8 eight-byte residues and its framing.
LARGEST = (1 << 30) - (1 << 20)


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything on the wire: a frozen record, sent as an array behind its kind.

    Each concrete message sets ``KIND``, one byte that is its own on the whole wire.
    """

    KIND: ClassVar[int] = 0


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The message's bytes: magic, version, kind, then MessagePack."""
    return _MAGIC + bytes([message.KIND]) + msgspec.msgpack.encode(message)


def kind(data: bytes) -> int:
    """The kind of message that ``data`` says it is. Raises ``MalformedMessage`` if it is none of this version's."""
    if len(data) < _PREFIX_BYTES or data[:3] != _MAGIC:
        raise MalformedMessage(f"not a message of protocol version {VERSION}")
    return data[3]


def decode(data: bytes, expected: type[M]) -> M:
    """The message in ``data``. Raises ``MalformedMessage`` for anything that is not exactly one ``expected``."""
    if len(data) > LARGEST:
        raise MalformedMessage(f"a message of {len(data)} bytes exceeds the limit of {LARGEST}")
    if kind(data) != expected.KIND:
        raise MalformedMessage(f"a message of kind {kind(data)} where {expected.__name__} was expected")
    try:
        return msgspec.msgpack.decode(memoryview(data)[_PREFIX_BYTES:], type=expected, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"the bytes are not a {expected.__name__}: {error}") from error
