"""Letters between two peers through somebody who carries them: sealed, each side knowing whom it speaks to.

A channel is opened by one message each way with fresh X25519 keys, both signed by pinned identities; the answer's
signature covers both keys, as in SIGMA without hidden identities (Krawczyk, CRYPTO 2003). Its secret gives one key for
each letter and one for each reply. Whoever carries letters sees who writes to whom, when, and how much; it can lose,
delay or repeat letters, and what it repeats is not opened a second time.

Nothing here reads or waits: bytes in, bytes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from protocols.aggregation.session import Roster
from protocols.base import Random
from protocols.errors import Forged, Inconsistent, MalformedMessage, SessionSpent
from protocols.primitives import AgreementKey, Identity, derive, digest, open_sealed, seal, verify
from securefl.peers.messages import Digest, Name, Signature

MAGIC: Final = b"SFP\x01"
_KEPT: Final = 4  # channels from one peer: one in use, and whatever was opened since and may be nobody's
_WINDOW: Final = 1024  # letters that may overtake each other

_Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Opening(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="opening"):
    sender: Name
    key: _Key
    signature: Signature


class _Opened(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="opened"):
    key: _Key
    signature: Signature


class _Letter(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="letter"):
    channel: Digest
    number: _Number
    sealed: bytes


class _Reply(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reply"):
    sealed: bytes


class _Stranger(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="stranger"):
    """There is no such channel: the process began after it was opened. Nobody signs that; it costs a new opening."""


_Carried = _Opening | _Opened | _Letter | _Reply | _Stranger
_DECODER: msgspec.msgpack.Decoder[_Carried] = msgspec.msgpack.Decoder(_Carried, strict=True)


@dataclass
class _Channel:
    """One direction: ``opener`` writes, ``other`` replies."""

    opener: str
    other: str
    id: bytes
    secret: bytes = field(repr=False)
    sent: int = 0
    seen: set[int] = field(default_factory=set)

    def letter(self, number: int, text: bytes) -> bytes:
        return seal(self._key("letter", number), text, self.id)

    def read(self, number: int, sealed: bytes) -> bytes:
        return open_sealed(self._key("letter", number), sealed, self.id)

    def reply(self, number: int, text: bytes) -> bytes:
        return seal(self._key("reply", number), text, self.id)

    def read_reply(self, number: int, sealed: bytes) -> bytes:
        return open_sealed(self._key("reply", number), sealed, self.id)

    def note(self, number: int) -> None:
        """Raises ``Inconsistent`` for a letter that came before, or is too old to tell."""
        newest = max(self.seen, default=-1)
        if number in self.seen or number <= newest - _WINDOW:
            raise Inconsistent(f"a letter of {self.opener} came a second time")
        self.seen = {other for other in self.seen if other > newest - _WINDOW} | {number}

    def _key(self, what: str, number: int) -> bytes:
        # Each key seals one message: a number is used once by the opener, and answered once by the other.
        return derive(self.secret, f"peer {what}", self.id, number.to_bytes(8, "big"))


class Channels:
    """Those of one peer's process. ``roster``: whom it speaks to, by pinned keys."""

    def __init__(self, name: str, identity: Identity, roster: Roster, random: Random = os.urandom) -> None:
        self._name = name
        self._identity = identity
        self._roster = roster
        self._random = random
        self._lock = Lock()
        self._opening: dict[str, AgreementKey] = {}
        self._outgoing: dict[str, _Channel] = {}
        self._incoming: dict[str, list[_Channel]] = {}

    # ---- to another peer

    def is_open(self, peer: str) -> bool:
        return peer in self._outgoing

    def opening(self, peer: str) -> bytes:
        """What to send to open a channel to a peer."""
        key = AgreementKey.generate(self._random)
        self._opening[peer] = key
        return _encoded(_Opening(self._name, key.public, self._identity.sign(_opens(self._name, peer, key.public))))

    def opened(self, peer: str, reply: bytes) -> None:
        """Take what came back. Raises ``ProtocolError`` unless this peer answered this very opening."""
        answer, key = _decoded(reply), self._opening.pop(peer, None)
        if not isinstance(answer, _Opened) or key is None:
            raise MalformedMessage(f"{peer} did not answer to the opening of a channel")
        about = _answers(self._name, peer, key.public, answer.key)
        verify(self._roster.public_key(peer), answer.signature, about, peer)
        self._outgoing[peer] = _channel(self._name, peer, key.public, answer.key, key.agree(answer.key))

    def sealed(self, peer: str, letter: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """A letter as it is carried, and what opens its reply: that raises ``SessionSpent`` where the other process
        knows no such channel, so that another has to be opened, and ``Forged`` for what is no reply to it.
        """
        with self._lock:
            channel = self._outgoing[peer]
            number, channel.sent = channel.sent, channel.sent + 1

        def open_reply(carried: bytes) -> bytes:
            answer = _decoded(carried)
            if isinstance(answer, _Stranger):
                self._outgoing.pop(peer, None)
                raise SessionSpent(f"{peer} has started again: another channel is needed")
            if not isinstance(answer, _Reply):
                raise MalformedMessage(f"{peer} sent no reply")
            return channel.read_reply(number, answer.sealed)

        return _encoded(_Letter(channel.id, number, channel.letter(number, letter))), open_reply

    # ---- from others

    def answer(self, carried: bytes, handle: Callable[[str, bytes], bytes]) -> bytes:
        """Answer what somebody carried here; ``handle`` gets a letter with its sender's name.

        Raises ``ProtocolError`` for what no member sent, or what came before: nothing is answered then.
        """
        match _decoded(carried):
            case _Opening(sender, key, signature):
                return self._answer_opening(sender, key, signature)
            case _Letter(id, number, sealed):
                channel = self._known(id)
                if channel is None:
                    return _encoded(_Stranger())
                letter = channel.read(number, sealed)
                with self._lock:
                    channel.note(number)
                    self._keep(channel)
                return _encoded(_Reply(channel.reply(number, handle(channel.opener, letter))))
            case _:
                raise MalformedMessage("neither an opening nor a letter")

    def _answer_opening(self, sender: str, key: bytes, signature: bytes) -> bytes:
        if sender == self._name:
            raise Forged("an opening that came back to its sender")
        verify(self._roster.public_key(sender), signature, _opens(sender, self._name, key), sender)
        own = AgreementKey.generate(self._random)
        channel = _channel(sender, self._name, key, own.public, own.agree(key))
        with self._lock:
            # An old opening may be repeated by whoever carries it, who cannot use what it opens: what is in use stays.
            known = self._incoming.setdefault(sender, [])
            del known[_KEPT - 1 :]
            known.append(channel)
        return _encoded(_Opened(own.public, self._identity.sign(_answers(sender, self._name, key, own.public))))

    def _known(self, id: bytes) -> _Channel | None:
        with self._lock:
            every = (channel for channels in self._incoming.values() for channel in channels)
            return next((channel for channel in every if channel.id == id), None)

    def _keep(self, channel: _Channel) -> None:
        """The channel in use comes first: it is the last to be dropped."""
        known = self._incoming[channel.opener]
        if channel in known:
            known.remove(channel)
        known.insert(0, channel)


def _channel(opener: str, other: str, key: bytes, answer: bytes, agreed: bytes) -> _Channel:
    id = digest("peer channel", opener.encode(), other.encode(), key, answer)
    return _Channel(opener, other, id, derive(agreed, "peer channel", id))


def _opens(opener: str, other: str, key: bytes) -> bytes:
    return digest("peer channel opening", opener.encode(), other.encode(), key)


def _answers(opener: str, other: str, key: bytes, answer: bytes) -> bytes:
    return digest("peer channel answer", opener.encode(), other.encode(), key, answer)


def _encoded(carried: _Carried) -> bytes:
    return MAGIC + msgspec.msgpack.encode(carried)


def _decoded(data: bytes) -> _Carried:
    if data[: len(MAGIC)] != MAGIC:
        raise MalformedMessage("not what peers carry to each other")
    try:
        return _DECODER.decode(memoryview(data)[len(MAGIC) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not what peers carry to each other: {error}") from error
