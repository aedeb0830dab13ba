"""Parties that a server plays itself, and what it does with a victim that has no other neighbours. Not a test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Advertised,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    SharePair,
    SharesRequest,
    Signed,
    envelope,
    key_list_digest,
)
from protocols.aggregation.secrets import commitment, share_key
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.primitives import AgreementKey, Identity, open_sealed, seal
from tests.protocols.attacks.adversary import VICTIM, Adversary


@dataclass(frozen=True)
class Puppet:
    """A party whose every secret the server knows: invented, colluding, or seized."""

    name: ClientId
    identity: Identity = field(repr=False)
    mask: AgreementKey = field(default_factory=lambda: AgreementKey.generate(os.urandom), repr=False)
    share: AgreementKey = field(default_factory=lambda: AgreementKey.generate(os.urandom), repr=False)

    def advertise(self, terms: Terms) -> Envelope:
        body = Advertised(self.mask.public, self.share.public, b"")
        header = Header(terms.session, Step.KEYS, self.name, b"", b"", b"")
        return envelope(self.identity, header, [msgspec.msgpack.encode(body)])

    def deal(self, terms: Terms, keys: bytes, receiver: ClientId, theirs: bytes) -> Extract:
        """A pair of shares that opens: of nothing."""
        pair = SharePair(bytes(33), bytes(33))
        key = share_key(terms, self.share.agree(theirs), keys, self.name, receiver)
        sealed = seal(key, msgspec.msgpack.encode(pair), keys)
        part = msgspec.msgpack.encode(Dealt(sealed, commitment(pair.seed), commitment(pair.key)))
        return Extract(Signed(b"", b""), part, 0, 1, b"")

    def receive(self, terms: Terms, keys: bytes, dealer: ClientId, theirs: bytes, part: bytes) -> SharePair:
        key = share_key(terms, self.share.agree(theirs), keys, dealer, self.name)
        return read([open_sealed(key, read([part], Dealt).sealed, keys)], SharePair)


def surround(server: Adversary, puppets: Sequence[Puppet], listed: Mapping[ClientId, Envelope] | None = None) -> None:
    """Show the victim a key list in which all its neighbours are puppets, and take it as far as its input.

    ``listed``: what stands in the list instead of what the puppets would say themselves.
    """
    server.advertise_keys([VICTIM])
    for puppet in puppets:
        server.heard[Step.KEYS][puppet.name] = (listed or {}).get(puppet.name) or puppet.advertise(server.terms)
    enclose(server, puppets, [puppet.name for puppet in puppets])


def enclose(server: Adversary, puppets: Sequence[Puppet], shown: Sequence[ClientId]) -> None:
    """Show the victim these as its neighbours, open what it deals to the puppets among them, and take its input.

    What the others among them deal to it has to be there already.
    """
    listed, near = server.heard[Step.KEYS], sorted(shown)
    theirs = read(listed[VICTIM].parts, Advertised).share_key
    keys = key_list_digest(server.members, server.entries)
    request = SharesRequest(server.members, server.entries, tuple(listed[name] for name in near))
    parts = dict(zip(near, server.ask(VICTIM, request).parts[1:], strict=True))
    dealt = {name: server.relayed(name, VICTIM) for name in near if name in server.heard[Step.SHARES]}
    for puppet in puppets:
        server.known[puppet.name] = puppet.mask
        server.keep(puppet.name, VICTIM, puppet.receive(server.terms, keys, VICTIM, theirs, parts[puppet.name]))
        dealt[puppet.name] = puppet.deal(server.terms, keys, VICTIM, theirs)
    server.dealers[VICTIM] = tuple(near)
    everybody = mark(server.members, server.members)
    server.ask(VICTIM, InputRequest(everybody, tuple(dealt[name] for name in near)))
