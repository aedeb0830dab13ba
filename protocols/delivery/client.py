"""A client's part in a delivery: sign a one-use key, seal a secret to others, open what was sealed to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from protocols.aggregation.messages import Envelope, Extract, Header, envelope, extract
from protocols.aggregation.session import Roster
from protocols.aggregation.verify import read
from protocols.base import ClientId, Random
from protocols.delivery.messages import Package, Purpose
from protocols.errors import Inconsistent
from protocols.merkle import tree_of
from protocols.primitives import AgreementKey, Identity, derive, digest, open_sealed, seal


def join(name: ClientId, identity: Identity, purpose: Purpose, key: AgreementKey) -> Envelope:
    """Sign a one-use key."""
    return envelope(identity, Header(purpose.session, purpose.join, name, b"", b"", b""), [key.public])


def give(
    name: ClientId,
    identity: Identity,
    purpose: Purpose,
    roster: Roster,
    joined: Sequence[Envelope],
    about: bytes,
    secret: bytes,
    random: Random,
) -> Envelope:
    """Seal ``secret`` to everyone in ``joined``, after checking that each signed its key for this purpose."""
    receivers = {}
    for each in joined:
        sender = each.signed.open(roster, purpose.session, purpose.join).sender
        each.open(roster, purpose.session, purpose.join, sender)
        receivers[sender] = joined_key(each)
    if len(receivers) != len(joined):
        raise Inconsistent("a receiver is listed twice")
    parts = [
        msgspec.msgpack.encode(_seal(purpose, name, peer, key, about, secret, random))
        for peer, key in receivers.items()
    ]
    return envelope(identity, Header(purpose.session, purpose.give, name, b"", b"", b""), parts)


def receive(
    name: ClientId, purpose: Purpose, roster: Roster, key: AgreementKey, given: Extract
) -> tuple[Package, bytes]:
    """The package for this client and the secret in it, if a roster member sealed it to exactly this one-use key."""
    header = given.open(roster, purpose.session, purpose.give)
    package = read([given.part], Package)
    if package.receiver != name or package.join_key != key.public:
        raise Inconsistent("the package is for another client or another one-use key")
    sealing = derive(key.agree(package.ephemeral), "delivery", purpose.session, package.about)
    return package, open_sealed(sealing, package.sealed, _associated(purpose, header.sender, package))


def joined_key(joining: Envelope) -> bytes:
    """The one-use key in a join envelope."""
    if len(joining.parts) != 1:
        raise Inconsistent("a join message has one part: the one-use key")
    return joining.parts[0]


def extracts_by_receiver(given: Envelope) -> Mapping[ClientId, Extract]:
    """A giver's parts, by the client that each is for."""
    tree = tree_of(given.parts)
    return {read([part], Package).receiver: extract(given, tree, index) for index, part in enumerate(given.parts)}


def _seal(
    purpose: Purpose, giver: ClientId, receiver: ClientId, key: bytes, about: bytes, secret: bytes, random: Random
) -> Package:
    ephemeral = AgreementKey.generate(random)
    sealing = derive(ephemeral.agree(key), "delivery", purpose.session, about)
    package = Package(receiver, key, ephemeral.public, about, b"")
    return msgspec.structs.replace(package, sealed=seal(sealing, secret, _associated(purpose, giver, package)))


def _associated(purpose: Purpose, giver: ClientId, package: Package) -> bytes:
    return digest(
        "package",
        purpose.session,
        giver.encode(),
        package.receiver.encode(),
        package.join_key,
        package.ephemeral,
        package.about,
    )
