"""The messages of a delivery, and what a delivery is for."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocols.aggregation.messages import Envelope, Extract
from protocols.aggregation.session import Roster, Step
from protocols.base import ClientId
from protocols.primitives import digest
from protocols.wire import Message


class Package(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The giver's part for one receiver. ``about`` names what is inside (a key id, a model tag)."""

    receiver: ClientId
    join_key: bytes
    ephemeral: bytes
    about: bytes
    sealed: bytes


class Purpose(msgspec.Struct, frozen=True):
    """What is handed over, in which three steps. ``session`` binds run, plan, roster and, for models, the round."""

    session: bytes
    join: Step
    give: Step
    receive: Step


class JoinRequest(Message, frozen=True):
    """Asks for a one-use key: for the CKKS key of a run, before its first round."""

    KIND: ClassVar[int] = 7
    announcement: bytes


class MakeKeyRequest(Message, frozen=True):
    """Asks one client to make the CKKS key and seal it to all who joined."""

    KIND: ClassVar[int] = 8
    run: str
    joined: tuple[Envelope, ...]


class ReceiveKeyRequest(Message, frozen=True):
    """The maker's signed header and the part for this receiver."""

    KIND: ClassVar[int] = 9
    run: str
    given: Extract


class CatchUpRequest(Message, frozen=True):
    """Asks a client that missed a sum for a one-use key. ``round`` is the round whose model it will get."""

    KIND: ClassVar[int] = 10
    run: str
    round: int


class SealModelRequest(Message, frozen=True):
    """Asks a client that holds the model of ``round`` to seal it to those who lack it."""

    KIND: ClassVar[int] = 11
    run: str
    round: int
    wanted: tuple[Envelope, ...]


class InstallModelRequest(Message, frozen=True):
    """The sealed model, and the signed replies of exchange 5 that show which model is the right one."""

    KIND: ClassVar[int] = 12
    run: str
    round: int
    given: Extract
    evidence: tuple[Envelope, ...]


def key_setup(run: str, configuration: bytes, roster: Roster) -> Purpose:
    """Handing out the CKKS key of a run."""
    session = digest("key set-up", run.encode(), configuration, roster.digest)
    return Purpose(session, Step.JOIN, Step.MAKE_KEY, Step.RECEIVE_KEY)


def catch_up(run: str, configuration: bytes, roster: Roster, round: int) -> Purpose:
    """Handing the model of a round to who missed it."""
    session = digest("catch-up", run.encode(), configuration, roster.digest, round.to_bytes(8, "big"))
    return Purpose(session, Step.CATCH_UP, Step.SEAL_MODEL, Step.INSTALL_MODEL)
