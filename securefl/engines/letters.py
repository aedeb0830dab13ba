"""What travels between a coordinator and a client that is a process of its own, around the protocol's own messages.

A request is in a letter with an id. The same letter again gets the same answer, byte for byte, so that whoever carries
letters may lose, repeat or delay them: the client answers each request once.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from protocols.errors import MalformedMessage
from protocols.primitives import digest

LONGEST = 1 << 30
"""Bytes of a letter or reply: more than the largest model that one message can carry."""

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
T = TypeVar("T")


class Hello(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="hello"):
    """Asks whether the client is there."""


class Ask(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="ask"):
    """A request, to be answered once however often it comes. ``signature``: whoever asks, over ``claim``; empty where
    letters travel in a channel of their own.
    """

    id: Id
    body: bytes
    signature: Annotated[bytes, Meta(max_length=64)] = b""


class Poll(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="poll"):
    """Asks for the answer to a letter that was sent before."""

    id: Id


class Here(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="here"):
    """The client is there. ``process`` is another after each restart."""

    process: Id


class Answer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="answer"):
    """What the client answered."""

    id: Id
    body: bytes


class Working(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="working"):
    """The answer is not ready yet: poll."""

    id: Id


class Unknown(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="unknown"):
    """This process has no such letter: it restarted, or it has forgotten. Send the whole letter."""

    id: Id


class Conflict(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="conflict"):
    """Another request came under this id before; this one is not answered."""

    id: Id


class Absent(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="absent"):
    """Whoever carries letters reached no client process."""


Letter = Hello | Ask | Poll
Reply = Here | Answer | Working | Unknown | Conflict | Absent


def claim(to: str, id: bytes, body: bytes) -> bytes:
    """What whoever asks signs: 32 bytes, of no other letter, and to nobody else."""
    return digest("letter to a client", to.encode(), id, body)


def encoded(value: Letter | Reply) -> bytes:
    return msgspec.msgpack.encode(value)


def letter(data: bytes) -> Letter:
    """Raises ``MalformedMessage`` for what is none."""
    return _decoded(_LETTERS, data)


def reply(data: bytes) -> Reply:
    """Raises ``MalformedMessage`` for what is none."""
    return _decoded(_REPLIES, data)


_LETTERS: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Letter, strict=True)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply, strict=True)


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a letter: {error}") from error
