"""Handing a key from one client to others through a server that must not read or replace it."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.messages import Envelope, Extract, Signed, envelope, extract
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.delivery.client import _seal, extracts_by_receiver, give, join
from protocols.delivery.messages import (
    JoinRequest,
    MakeKeyRequest,
    Package,
    ReceiveKeyRequest,
    ShareKeyRequest,
    catch_up,
    key_setup,
)
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError
from protocols.merkle import climb, leaf, tree_of
from protocols.primitives import AgreementKey, Identity
from protocols.wire import Message, decode, encode
from tests.protocols.cohort import identity, names, roster
from tests.protocols.delivery.parties import ROSTER, SESSION, Party, about, everybody, header, secret_of, signed


@pytest.fixture
def parties() -> dict[ClientId, Party]:
    return everybody()


def gift(parties: dict[ClientId, Party], giver: ClientId = "c0") -> Envelope:
    return parties[giver].given([party.joined() for party in parties.values()])


def package_for(parties: dict[ClientId, Party], receiver: ClientId) -> Extract:
    return extracts_by_receiver(gift(parties))[receiver]


def only_part(given: Envelope) -> Extract:
    return extract(given, tree_of(given.parts), 0)


def changed(given: Extract, **fields: object) -> Extract:
    return msgspec.structs.replace(given, **fields)


# ---- what a receiver takes


def test_each_receiver_gets_the_secret_and_what_it_is_about(parties: dict[ClientId, Party]) -> None:
    given = gift(parties)
    for name, mine in extracts_by_receiver(given).items():
        package, secret = parties[name].received(mine)
        assert secret == secret_of("c0") and package.about == about("c0")


def test_the_server_sees_neither_the_secret_nor_a_key(parties: dict[ClientId, Party]) -> None:
    seen = encode(gift(parties)) + b"".join(encode(party.joined()) for party in parties.values())
    for secret in (secret_of("c0"), *(party.key.secret for party in parties.values())):
        assert not any(secret[place : place + 8] in seen for place in range(len(secret) - 7))


def test_a_package_that_no_roster_member_signed_is_refused(parties: dict[ClientId, Party]) -> None:
    """Or the server could seal a key of its own, and read everything."""
    joined = [party.joined() for party in parties.values()]
    for name in ("c0", "server"):
        forged = give(name, Identity(bytes(32)), SESSION, ROSTER, joined, b"about", b"the server's own s", os.urandom)
        with pytest.raises((Forged, Inconsistent)):
            parties["c1"].received(extracts_by_receiver(forged)["c1"])


def test_a_part_that_the_giver_did_not_sign_is_refused(parties: dict[ClientId, Party]) -> None:
    given, other = package_for(parties, "c1"), extracts_by_receiver(gift(parties, "c3"))["c1"]
    package = msgspec.msgpack.decode(given.part, type=Package)
    for bad in (
        changed(given, part=other.part),
        changed(other, signed=given.signed),
        changed(given, part=msgspec.msgpack.encode(msgspec.structs.replace(package, about=b"another key"))),
        changed(given, part=b""),
        changed(given, index=given.index ^ 1),
        changed(given, path=given.path[:-1] + bytes([given.path[-1] ^ 1])),
        changed(given, path=given.path[32:] + given.path[:32]),
    ):
        with pytest.raises(Forged, match="signed"):
            parties["c1"].received(bad)
    for bad in (changed(given, index=-1), changed(given, index=4), changed(given, parts=0), changed(given, path=b"")):
        with pytest.raises(MalformedMessage):
            parties["c1"].received(bad)


def test_another_receivers_package_is_refused(parties: dict[ClientId, Party]) -> None:
    with pytest.raises(Inconsistent, match="another client"):
        parties["c1"].received(package_for(parties, "c2"))


def test_a_package_that_opens_but_names_another_receiver_is_refused(parties: dict[ClientId, Party]) -> None:
    """A dishonest giver can seal such a one; a signed package must mean one thing."""
    odd = msgspec.msgpack.encode(_seal(SESSION, "c0", "c2", parties["c1"].key.public, b"about", b"s", os.urandom))
    given = envelope(identity("c0"), header("c0", Step.GIVE_KEY), [odd])
    with pytest.raises(Inconsistent, match="another client"):
        parties["c1"].received(only_part(given))


def test_a_package_for_an_earlier_one_use_key_is_refused(parties: dict[ClientId, Party]) -> None:
    given = package_for(parties, "c1")
    parties["c1"].received(given)
    with pytest.raises(Inconsistent, match="one-use key"):
        Party("c1").received(given)


def signed_package(parties: dict[ClientId, Party], giver: ClientId, **fields: object) -> Extract:
    """What a dishonest roster member could sign: c0's package for c1 with other fields."""
    honest = msgspec.msgpack.decode(package_for(parties, "c1").part, type=Package)
    part = msgspec.msgpack.encode(msgspec.structs.replace(honest, **fields))
    return only_part(decode(signed(giver, Step.GIVE_KEY, part), Envelope))


@pytest.mark.parametrize(
    "fields", [{"about": b"x"}, {"ephemeral": bytes(32)}, {"ephemeral": b""}, {"sealed": b""}, {"sealed": bytes(99)}]
)
def test_a_signed_package_that_does_not_open_is_forged(
    parties: dict[ClientId, Party], fields: dict[str, bytes]
) -> None:
    with pytest.raises(Forged):
        parties["c1"].received(signed_package(parties, "c0", **fields))


def test_a_package_of_one_giver_is_not_anothers(parties: dict[ClientId, Party]) -> None:
    """c3 cannot sign c0's package as its own: the sealing names its giver."""
    parties["c1"].received(signed_package(parties, "c0"))
    with pytest.raises(Forged, match="open"):
        parties["c1"].received(signed_package(parties, "c3"))


@pytest.mark.parametrize(
    "other",
    [
        key_setup("another run", b"plan", ROSTER, 0),
        key_setup("run", b"another plan", ROSTER, 0),
        key_setup("run", b"plan", roster(3), 0),
        key_setup("run", b"plan", ROSTER, 1),
        catch_up("run", b"plan", ROSTER, 0),
    ],
)
def test_a_delivery_in_another_session_is_refused(parties: dict[ClientId, Party], other: bytes) -> None:
    joined = [party.joined(other) for party in parties.values()]
    given = parties["c0"].given(joined, other)
    with pytest.raises(Inconsistent):
        parties["c1"].received(extracts_by_receiver(given)["c1"])
    with pytest.raises(Inconsistent):
        parties["c0"].given(joined)


def test_each_round_has_a_key_set_up_and_a_catch_up_of_its_own() -> None:
    made = {make("run", b"plan", ROSTER, round) for make in (key_setup, catch_up) for round in range(5)}
    assert len(made) == 10


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans(), st.binary(max_size=60))
def test_a_receiver_raises_nothing_but_protocol_errors(place: float, bit: int, header: bool, garbage: bytes) -> None:
    parties = {name: Party(name) for name in names(2)}
    given = package_for(parties, "c1")
    signed = given.signed
    target = bytearray(signed.header if header else given.part)
    target[int(place * len(target))] ^= 1 << bit
    flipped = {"signed": Signed(bytes(target), signed.signature)} if header else {"part": bytes(target)}
    for bad in (
        flipped,
        {"signed": Signed(garbage, signed.signature)},
        {"part": garbage},
        {"signed": Signed(signed.header, garbage)},
        {"path": garbage},
        {"index": 2 + bit},
        {"index": -1 - bit},
    ):
        with pytest.raises(ProtocolError):
            parties["c1"].received(changed(given, **bad))


def test_a_receiver_is_shown_one_package_and_no_other(parties: dict[ClientId, Party]) -> None:
    """The proof is made of hashes: 32 bytes for each doubling of the receivers."""
    given = package_for(parties, "c1")
    assert (given.index, given.parts, len(given.path)) == (1, 4, 64)
    body = given.signed.authenticate(ROSTER).body
    assert climb(leaf(given.part), given.index, given.parts, given.path) == body


def test_a_package_prints_no_secret(parties: dict[ClientId, Party]) -> None:
    package, secret = parties["c1"].received(package_for(parties, "c1"))
    assert repr(secret)[2:-1] not in repr(package)


# ---- what a giver gives to


def test_a_giver_seals_to_nobody_who_did_not_sign_a_one_use_key(parties: dict[ClientId, Party]) -> None:
    good = [party.joined() for party in parties.values()]
    own = header("c1", Step.JOIN)
    by_server = envelope(Identity(bytes(32)), own, [AgreementKey.generate(os.urandom).public])
    swapped = Envelope(good[1].signed, (AgreementKey.generate(os.urandom).public,))
    stranger = join("c9", identity("c9"), SESSION, AgreementKey.generate(os.urandom))
    other_step = envelope(identity("c1"), header("c1", Step.RECEIVE_KEY), good[1].parts)
    two = envelope(identity("c1"), own, [*good[1].parts, b""])
    low_order = envelope(identity("c1"), own, [bytes(32)])
    for bad in (by_server, swapped, stranger, other_step, two, low_order):
        with pytest.raises((Forged, Inconsistent)):
            parties["c0"].given([good[0], bad])
    with pytest.raises(Inconsistent, match=r"twice|of 4 clients"):
        parties["c0"].given([*good, good[1]])
    with pytest.raises(Inconsistent, match=r"twice|of 4 clients"):
        parties["c0"].given([*good, Party("c1").joined()])


def test_no_two_packages_share_a_sealing_key(parties: dict[ClientId, Party]) -> None:
    """One secret to four receivers: under one key and the fixed nonce the ciphertexts would be equal."""
    packages = [msgspec.msgpack.decode(part, type=Package) for part in gift(parties).parts]
    length = len(secret_of("c0"))
    assert len({package.sealed[:length] for package in packages}) == len({p.ephemeral for p in packages}) == 4


# ---- messages


def test_two_packages_for_one_receiver_are_not_two_receivers(parties: dict[ClientId, Party]) -> None:
    given = gift(parties)
    doubled = decode(signed("c0", Step.GIVE_KEY, *given.parts, given.parts[1]), Envelope)
    assert set(extracts_by_receiver(doubled)) == set(names(4))
    with pytest.raises(MalformedMessage):
        extracts_by_receiver(decode(signed("c0", Step.GIVE_KEY, b""), Envelope))


@pytest.mark.parametrize(
    "message",
    [
        JoinRequest(b"x"),
        MakeKeyRequest("run", 3, (Envelope(Signed(b"", b""), (b"",)),)),
        ShareKeyRequest("run", 3, b"key id", (Envelope(Signed(b"", b""), (b"",)),)),
        ReceiveKeyRequest("run", 3, Extract(Signed(b"h", b"s"), b"p", 1, 2, b"way")),
    ],
)
def test_messages_of_a_keys_delivery_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message), type(message)) == message
