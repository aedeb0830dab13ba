"""Clients of a key's delivery, made of the pieces that real ones are made of, and the line to them. Not a test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocols.aggregation.messages import Envelope, Extract, Header, Refusal, envelope
from protocols.aggregation.session import Roster, Step
from protocols.base import ClientId, ClientSession, Messages
from protocols.delivery.client import give, join, receive
from protocols.delivery.messages import (
    JoinRequest,
    MakeKeyRequest,
    Package,
    ReceiveKeyRequest,
    ShareKeyRequest,
    key_setup,
)
from protocols.errors import ProtocolError
from protocols.primitives import AgreementKey, digest
from protocols.wire import decode, encode
from tests.protocols.cohort import identity, names, roster

ROSTER = roster(4)
SESSION = key_setup("run", b"plan", ROSTER, 0)


def secret_of(giver: ClientId) -> bytes:
    return digest("secret", giver.encode())


def about(giver: ClientId) -> bytes:
    """What a giver says that its secret is called."""
    return b"key of " + giver.encode()


def header(name: ClientId, step: Step, session: bytes = SESSION) -> Header:
    return Header(session, step, name, b"", b"", b"")


def signed(name: ClientId, step: Step, *parts: bytes) -> bytes:
    """A reply with these parts, whatever they are, rightly signed."""
    return encode(envelope(identity(name), header(name, step), parts))


@dataclass
class Party:
    """A client; ``held`` is what it received last: what it is about, and the secret."""

    name: ClientId
    key: AgreementKey = field(default_factory=lambda: AgreementKey.generate(os.urandom))
    held: tuple[bytes, bytes] = (b"", b"")

    def joined(self, session: bytes = SESSION) -> Envelope:
        return join(self.name, identity(self.name), session, self.key)

    def given(self, joined: Sequence[Envelope], session: bytes = SESSION, members: Roster = ROSTER) -> Envelope:
        secret = secret_of(self.name)
        return give(self.name, identity(self.name), session, members, joined, about(self.name), secret, os.urandom)

    def received(self, given: Extract, session: bytes = SESSION) -> tuple[Package, bytes]:
        return receive(self.name, session, ROSTER, self.key, given)

    def handle(self, request: bytes) -> bytes:
        try:
            return self._answer(request)
        except ProtocolError:
            return encode(Refusal("protocol"))

    def _answer(self, request: bytes) -> bytes:
        match request[3]:
            case JoinRequest.KIND:
                return encode(self.joined())
            case MakeKeyRequest.KIND:
                return encode(self.given(decode(request, MakeKeyRequest).joined))
            case ShareKeyRequest.KIND:
                return encode(self.given(decode(request, ShareKeyRequest).joined))
            case _:
                package, secret = self.received(decode(request, ReceiveKeyRequest).given)
                self.held = (package.about, secret)
                return signed(self.name, Step.RECEIVE_KEY, package.about)


def everybody() -> dict[ClientId, Party]:
    return {name: Party(name) for name in names(4)}


@dataclass
class Line:
    """The transport. ``dead`` clients hear nothing from an exchange on; some replies arrive ``replaced``, or, as
    nothing, not at all. ``asked``: all requests, exchange by exchange.
    """

    parties: Mapping[ClientId, ClientSession]
    dead: dict[ClientId, int] = field(default_factory=dict)
    replaced: dict[tuple[int, ClientId], bytes] = field(default_factory=dict)
    asked: list[Messages] = field(default_factory=list)

    def __call__(self, requests: Messages) -> list[tuple[ClientId, bytes]]:
        turn = len(self.asked)
        self.asked.append(requests)
        said = {name: self.parties[name].handle(data) for name, data in requests.items() if self._hears(name, turn)}
        arrived = {name: self.replaced.get((turn, name), reply) for name, reply in said.items()}
        return [(name, reply) for name, reply in arrived.items() if reply]

    def _hears(self, name: ClientId, turn: int) -> bool:
        return name not in self.dead or turn < self.dead[name]
