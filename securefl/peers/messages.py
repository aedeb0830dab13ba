"""What peers say to each other beside the protocol's own messages: turns, votes, locks, and batons.

Each is asked by the peer whose turn it is; docs/peers.md has the order.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import Envelope, Number, RunName
from protocols.aggregation.session import LONGEST_NAME
from protocols.base import ClientId
from protocols.wire import Message, decode, kind
from securefl.named_run import named_run

Name = Annotated[ClientId, msgspec.Meta(max_length=LONGEST_NAME)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Digest = Annotated[bytes, msgspec.Meta(max_length=32)]
Turn = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Word(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's signature over something that everybody can put together again."""

    sender: Name
    signature: Signature


class Certificate(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A quorum's equal words about the baton of this digest, at one turn."""

    turn: Turn
    digest: Digest
    words: tuple[Word, ...]


class Passed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An encoded :class:`securefl.peers.baton.Baton`, its maker's signature, and beside it the model that it names.

    ``model``: empty where only key holders can read it, and of all rounds but the newest.
    """

    baton: bytes
    signature: Signature
    model: bytes


class Settled(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A baton for good, with the locks of a quorum: there is no other of its round."""

    passed: Passed
    locks: Certificate


class Grant(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A peer's word that the turn is given, and which lock it has: its turn and digest, or -1 and nothing."""

    sender: Name
    lock_turn: Annotated[int, msgspec.Meta(ge=-1, le=2**40)]
    lock: Digest
    signature: Signature


class Began(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a round began with where only key holders read the model: its tag, the key's id, clients' words for it."""

    tag: Digest
    key_id: Digest
    evidence: tuple[Envelope, ...]


class Handed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sum that was handed down, byte for byte as it came."""

    request: bytes
    began: Began


class TurnRequest(Message, frozen=True):
    """Asks whether it is time for the turn in a round, and with ``due``, a quorum's words that it is, for the turn; and
    how far the asked peer is, which is all it asks where that is no next round.
    """

    KIND: ClassVar[int] = 17
    run: RunName
    round: Number
    turn: Turn
    due: tuple[Word, ...] = ()


class TurnReply(Message, frozen=True):
    """``round``: the last that is settled for this peer. If it is the one before the asked round, ``turn``: the latest
    that this peer gave, -1 for none; and its word that it is time, or the grant, the votes behind the lock that it
    names, and the hash of a sum of the round that this peer was handed.
    """

    KIND: ClassVar[int] = 37
    round: Number
    grant: Grant | None = None
    votes: Certificate | None = None
    handed: Digest = b""
    turn: Annotated[int, msgspec.Meta(ge=-1, le=2**40)] = -1
    due: Word | None = None


class VoteRequest(Message, frozen=True):
    """Shows a baton; ``grants`` of a quorum entitle the sender to pass it, ``votes`` are behind the lock among them."""

    KIND: ClassVar[int] = 18
    run: RunName
    round: Number
    turn: Turn
    passed: Passed
    grants: tuple[Grant, ...]
    votes: Certificate | None


class LockRequest(Message, frozen=True):
    """Shows the votes of a quorum for the baton of this turn."""

    KIND: ClassVar[int] = 19
    run: RunName
    round: Number
    votes: Certificate


class Said(Message, frozen=True):
    """A peer's signature, of a vote or a lock."""

    KIND: ClassVar[int] = 38
    signature: Signature


class TakeRequest(Message, frozen=True):
    """Hands over a settled baton."""

    KIND: ClassVar[int] = 20
    run: RunName
    settled: Settled


class Taken(Message, frozen=True):
    """The last round that is settled for this peer now."""

    KIND: ClassVar[int] = 40
    round: Number


class FetchRequest(Message, frozen=True):
    """Asks for the settled baton of a round, or the one named ``wanted``, if this peer locked it or voted for it."""

    KIND: ClassVar[int] = 21
    run: RunName
    round: Number
    wanted: Digest = b""


class Fetched(Message, frozen=True):
    """What there is of it."""

    KIND: ClassVar[int] = 41
    settled: Settled | None
    passed: Passed | None


class SumRequest(Message, frozen=True):
    """Asks for the sum of a round that this peer was handed."""

    KIND: ClassVar[int] = 22
    run: RunName
    round: Number


class Sum(Message, frozen=True):
    """It, if there is one."""

    KIND: ClassVar[int] = 42
    handed: Handed | None


Asked = TurnRequest | VoteRequest | LockRequest | TakeRequest | FetchRequest | SumRequest
_ASKED: Final[dict[int, type[Asked]]] = {
    request.KIND: request for request in (TurnRequest, VoteRequest, LockRequest, TakeRequest, FetchRequest, SumRequest)
}


def run_of(request: bytes) -> str | None:
    """The run that a peer's request names; None of one that goes by its session. Raises ``MalformedMessage``."""
    asked = _ASKED.get(kind(request))
    return named_run(request) if asked is None else decode(request, asked).run
