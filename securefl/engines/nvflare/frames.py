"""What the coordinator and its job at the server say to each other over a local socket, and the client process and its
worker at a site: letters, each with a number.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from protocols.errors import MalformedMessage

TOPIC = "securefl.letter"
BYTES = "bytes"
"""Where a message between server and site has its letter."""
SOCKET = "securefl.sock"
"""In a kit's folder: where the coordinator listens at the server, and the client process at a site."""


class Forwarded(Struct, frozen=True, array_like=True, tag="forwarded"):
    """At a site, the first word of a connection: what comes next was sent by somebody elsewhere, whatever it says."""


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The job runs, over these sites. At a site, only its own worker says so, and never what it forwards."""

    job: str
    sites: tuple[str, ...]


class Call(Struct, frozen=True, array_like=True, tag="call"):
    """Take this letter to a site, and bring back its reply within so many seconds."""

    number: int
    site: str
    letter: bytes
    seconds: float


class Back(Struct, frozen=True, array_like=True, tag="back"):
    """The reply; empty where none came."""

    number: int
    reply: bytes


Frame = Forwarded | Ready | Call | Back
_FRAMES: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame, strict=True)


def encoded(frame: Frame) -> bytes:
    return msgspec.msgpack.encode(frame)


def decoded(data: bytes) -> Frame:
    """Raises ``MalformedMessage`` for what is no frame."""
    try:
        return _FRAMES.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a frame: {error}") from error
