"""The messages by which a key, or a model, gets from one client to others through a server that cannot read it."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocols.aggregation.messages import Envelope, Extract, Number, RunName
from protocols.aggregation.session import Roster
from protocols.base import ClientId
from protocols.primitives import digest
from protocols.wire import Message


class Package(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The giver's part for one receiver. ``about`` names what is inside (a key id)."""

    receiver: ClientId
    join_key: bytes
    ephemeral: bytes
    about: bytes
    sealed: bytes


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A model that a key holder sealed for all others, and its tag: whoever has the run's key can open it."""

    tag: bytes
    salt: bytes
    sealed: bytes


class JoinRequest(Message, frozen=True):
    """Asks for a one-use key, to receive the run's CKKS key under it."""

    KIND: ClassVar[int] = 7
    announcement: bytes


class MakeKeyRequest(Message, frozen=True):
    """Asks one client to make a new CKKS key and seal it to all who joined."""

    KIND: ClassVar[int] = 8
    run: RunName
    round: Number
    joined: tuple[Envelope, ...]


class ReceiveKeyRequest(Message, frozen=True):
    """The giver's signed header and the part for this receiver."""

    KIND: ClassVar[int] = 9
    run: RunName
    round: Number
    given: Extract


class ShareKeyRequest(Message, frozen=True):
    """Asks one client to seal the CKKS key that the run has now to those who joined later."""

    KIND: ClassVar[int] = 10
    run: RunName
    round: Number
    key_id: bytes
    joined: tuple[Envelope, ...]


class SealModelRequest(Message, frozen=True):
    """Asks a client that holds the model of ``round`` to seal it, under the run's key, for those who lack it."""

    KIND: ClassVar[int] = 11
    run: RunName
    round: Number
    key_id: bytes


class InstallModelRequest(Message, frozen=True):
    """A sealed model, and the signed replies that show which model is the right one."""

    KIND: ClassVar[int] = 12
    run: RunName
    round: Number
    checkpoint: Envelope
    evidence: tuple[Envelope, ...]


def key_setup(run: str, configuration: bytes, roster: Roster, round: int) -> bytes:
    """The session in which a run's CKKS key is handed out after ``round``; 0 before the first."""
    return digest("key set-up", run.encode(), configuration, roster.digest, round.to_bytes(8, "big"))


def catch_up(run: str, configuration: bytes, roster: Roster, round: int) -> bytes:
    """The session in which the model of a round is handed to who missed it."""
    return digest("catch-up", run.encode(), configuration, roster.digest, round.to_bytes(8, "big"))
