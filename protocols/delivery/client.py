"""A client's part in a delivery: receive the CKKS key under a one-use key, give it to others, seal and open a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from protocols.aggregation.messages import Envelope, Extract, Header, envelope, extract
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.verify import read
from protocols.base import ClientId, Random
from protocols.delivery.messages import Checkpoint, Package
from protocols.errors import Inconsistent
from protocols.merkle import tree_of
from protocols.primitives import KEY_BYTES, AgreementKey, Identity, derive, digest, open_sealed, seal


def join(name: ClientId, identity: Identity, session: bytes, key: AgreementKey) -> Envelope:
    """Sign a one-use key."""
    return envelope(identity, Header(session, Step.JOIN, name, b"", b"", b""), [key.public])


def give(
    name: ClientId,
    identity: Identity,
    session: bytes,
    roster: Roster,
    joined: Sequence[Envelope],
    about: bytes,
    secret: bytes,
    random: Random,
) -> Envelope:
    """Seal ``secret`` to everyone in ``joined``, after checking that each signed its key for this session."""
    if len(joined) > len(roster.keys):
        raise Inconsistent(f"{len(joined)} joined, of {len(roster.keys)} clients")
    receivers = {}
    for each in joined:
        sender = each.signed.open(roster, session, Step.JOIN).sender
        each.open(roster, session, Step.JOIN, sender)
        receivers[sender] = joined_key(each)
    if len(receivers) != len(joined):
        raise Inconsistent("a receiver is listed twice")
    parts = [
        msgspec.msgpack.encode(_seal(session, name, peer, key, about, secret, random))
        for peer, key in receivers.items()
    ]
    return envelope(identity, Header(session, Step.GIVE_KEY, name, b"", b"", b""), parts)


def receive(name: ClientId, session: bytes, roster: Roster, key: AgreementKey, given: Extract) -> tuple[Package, bytes]:
    """The package for this client and the secret in it, if a roster member sealed it to exactly this one-use key."""
    header = given.open(roster, session, Step.GIVE_KEY)
    package = read([given.part], Package)
    if package.receiver != name or package.join_key != key.public:
        raise Inconsistent("the package is for another client or another one-use key")
    sealing = derive(key.agree(package.ephemeral), "delivery", session, package.about)
    return package, open_sealed(sealing, package.sealed, _associated(session, header.sender, package))


def seal_model(
    name: ClientId, identity: Identity, session: bytes, tag_key: bytes, tag: bytes, model: bytes, random: Random
) -> Envelope:
    """Seal a model, and the tag that it goes by, to all who have the tag key."""
    salt = random(KEY_BYTES)
    sealed = seal(_checkpoint_key(tag_key, session, salt), model, digest("checkpoint", session, name.encode(), tag))
    part = msgspec.msgpack.encode(Checkpoint(tag, salt, sealed))
    return envelope(identity, Header(session, Step.SEAL_MODEL, name, b"", b"", b""), [part])


def open_model(session: bytes, roster: Roster, tag_key: bytes, given: Envelope) -> bytes:
    """The model that a roster member sealed; whether it is the right one, its tag must tell."""
    sender = given.signed.open(roster, session, Step.SEAL_MODEL).sender
    given.open(roster, session, Step.SEAL_MODEL, sender)
    checkpoint = read(given.parts, Checkpoint)
    associated = digest("checkpoint", session, sender.encode(), checkpoint.tag)
    return open_sealed(_checkpoint_key(tag_key, session, checkpoint.salt), checkpoint.sealed, associated)


def _checkpoint_key(tag_key: bytes, session: bytes, salt: bytes) -> bytes:
    # A fresh salt makes it the key of one message, so that the nonce may be fixed.
    return derive(tag_key, "checkpoint", session, salt)


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
    session: bytes, giver: ClientId, receiver: ClientId, key: bytes, about: bytes, secret: bytes, random: Random
) -> Package:
    ephemeral = AgreementKey.generate(random)
    sealing = derive(ephemeral.agree(key), "delivery", session, about)
    package = Package(receiver, key, ephemeral.public, about, b"")
    return msgspec.structs.replace(package, sealed=seal(sealing, secret, _associated(session, giver, package)))


def _associated(session: bytes, giver: ClientId, package: Package) -> bytes:
    return digest(
        "package",
        session,
        giver.encode(),
        package.receiver.encode(),
        package.join_key,
        package.ephemeral,
        package.about,
    )
