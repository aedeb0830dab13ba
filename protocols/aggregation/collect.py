"""Folding one exchange's replies in: what does not verify is a fault of its sender and never stops the others."""

from __future__ import annotations

from typing import Protocol

from protocols.aggregation.messages import Envelope, Refusal
from protocols.base import ClientId, Replies
from protocols.errors import Inconsistent, MalformedMessage, ProtocolError
from protocols.wire import decode, kind


class Exchanged(Protocol):
    """One exchange as the server sees it: who was asked, who answered well, and how a reply is taken in."""

    asked: frozenset[ClientId]

    @property
    def largest(self) -> int:
        """The most bytes that an honest reply has: no longer one is even decoded."""
        ...

    @property
    def accepted(self) -> frozenset[ClientId]: ...

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        """Take one reply in. Raises ``ProtocolError`` and changes nothing if it does not verify."""
        ...


def collect(replies: Replies, exchanged: Exchanged, faults: dict[ClientId, str]) -> None:
    """Fold every reply in, one at a time; note in ``faults`` who sent what could not be accepted."""
    for sender, data in replies:
        try:
            if sender not in exchanged.asked or sender in exchanged.accepted:
                raise Inconsistent("an answer that was not asked for")
            if len(data) > exchanged.largest:
                raise MalformedMessage(f"a reply of {len(data)} bytes, at most {exchanged.largest} are honest")
            if kind(data) == Refusal.KIND:
                raise Inconsistent(f"refused: {decode(data, Refusal).reason}")
            exchanged.fold(sender, decode(data, Envelope))
        except ProtocolError as error:
            faults.setdefault(sender, str(error))
