"""Handing a key or a model from one client to others through a server that must not read or replace it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.messages import Envelope, Extract, Header, Refusal, Signed, envelope, extract
from protocols.aggregation.session import Roster
from protocols.base import ClientId, Messages, drive
from protocols.delivery.client import _seal, extracts_by_receiver, give, join, receive
from protocols.delivery.messages import (
    CatchUpRequest,
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    Package,
    Purpose,
    ReceiveKeyRequest,
    SealModelRequest,
    catch_up,
    key_setup,
)
from protocols.delivery.server import Delivered, DeliveryServer, Requests
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError, RoundAborted
from protocols.merkle import climb, leaf, tree_of
from protocols.primitives import AgreementKey, Identity
from protocols.wire import Message, decode, encode
from tests.protocols.cohort import identity, names, roster

ROSTER = roster(4)
PURPOSE = key_setup("run", b"plan", ROSTER)
REQUESTS = Requests(JoinRequest(b""), partial(MakeKeyRequest, "run"), partial(ReceiveKeyRequest, "run"))
SECRET = bytes(range(100, 164))


@dataclass
class Party:
    """A client of a key set-up, from the pieces that a real one is made of."""

    name: ClientId
    key: AgreementKey = field(default_factory=lambda: AgreementKey.generate(os.urandom))
    secret: bytes = b""

    def joined(self, purpose: Purpose = PURPOSE) -> Envelope:
        return join(self.name, identity(self.name), purpose, self.key)

    def given(self, joined: list[Envelope], purpose: Purpose = PURPOSE, members: Roster = ROSTER) -> Envelope:
        return give(self.name, identity(self.name), purpose, members, joined, b"about", SECRET, os.urandom)

    def received(self, given: Extract, purpose: Purpose = PURPOSE) -> tuple[Package, bytes]:
        return receive(self.name, purpose, ROSTER, self.key, given)

    def handle(self, request: bytes) -> bytes:
        match request[3]:
            case JoinRequest.KIND:
                return encode(self.joined())
            case MakeKeyRequest.KIND:
                return encode(self.given(list(decode(request, MakeKeyRequest).joined)))
            case _:
                package, self.secret = self.received(decode(request, ReceiveKeyRequest).given)
                header = Header(PURPOSE.session, PURPOSE.receive, self.name, b"", b"", b"")
                return encode(envelope(identity(self.name), header, [package.about]))


@pytest.fixture
def parties() -> dict[ClientId, Party]:
    return {name: Party(name) for name in names(4)}


def package_for(parties: dict[ClientId, Party], receiver: ClientId) -> Extract:
    return extracts_by_receiver(parties["c0"].given([party.joined() for party in parties.values()]))[receiver]


def only_part(given: Envelope) -> Extract:
    return extract(given, tree_of(given.parts), 0)


def changed(given: Extract, **fields: object) -> Extract:
    return msgspec.structs.replace(given, **fields)


# ---- what a receiver takes


def test_each_receiver_gets_the_secret_and_what_it_is_about(parties: dict[ClientId, Party]) -> None:
    given = parties["c0"].given([party.joined() for party in parties.values()])
    for name, mine in extracts_by_receiver(given).items():
        package, secret = parties[name].received(mine)
        assert secret == SECRET and package.about == b"about"
    assert SECRET not in encode(given) and all(party.key.secret not in encode(given) for party in parties.values())


def test_a_package_that_no_roster_member_signed_is_refused(parties: dict[ClientId, Party]) -> None:
    """Or the server could seal a key of its own, and read everything."""
    joined = [party.joined() for party in parties.values()]
    for name in ("c0", "server"):
        forged = give(name, Identity(bytes(32)), PURPOSE, ROSTER, joined, b"about", b"the server's own s", os.urandom)
        with pytest.raises((Forged, Inconsistent)):
            parties["c1"].received(extracts_by_receiver(forged)["c1"])


def test_a_part_that_the_giver_did_not_sign_is_refused(parties: dict[ClientId, Party]) -> None:
    given = package_for(parties, "c1")
    other = extracts_by_receiver(parties["c3"].given([party.joined() for party in parties.values()]))["c1"]
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
    odd = msgspec.msgpack.encode(_seal(PURPOSE, "c0", "c2", parties["c1"].key.public, b"about", SECRET, os.urandom))
    given = envelope(identity("c0"), Header(PURPOSE.session, PURPOSE.give, "c0", b"", b"", b""), [odd])
    with pytest.raises(Inconsistent, match="another client"):
        parties["c1"].received(only_part(given))


def test_a_package_for_an_earlier_one_use_key_is_refused(parties: dict[ClientId, Party]) -> None:
    given = package_for(parties, "c1")
    parties["c1"].received(given)
    with pytest.raises(Inconsistent, match="one-use key"):
        Party("c1").received(given)


def signed_package(parties: dict[ClientId, Party], **fields: object) -> Extract:
    """What a dishonest roster member could sign."""
    honest = package_for(parties, "c1").part
    package = msgspec.structs.replace(msgspec.msgpack.decode(honest, type=Package), **fields)
    forged = envelope(
        identity("c0"), Header(PURPOSE.session, PURPOSE.give, "c0", b"", b"", b""), [msgspec.msgpack.encode(package)]
    )
    return only_part(forged)


@pytest.mark.parametrize(
    "fields", [{"about": b"x"}, {"ephemeral": bytes(32)}, {"ephemeral": b""}, {"sealed": b""}, {"sealed": bytes(99)}]
)
def test_a_signed_package_that_does_not_open_is_forged(
    parties: dict[ClientId, Party], fields: dict[str, bytes]
) -> None:
    with pytest.raises(Forged):
        parties["c1"].received(signed_package(parties, **fields))


def test_a_package_of_one_giver_is_not_anothers(parties: dict[ClientId, Party]) -> None:
    """c3 cannot sign c0's package as its own: the sealing names its giver."""
    part = package_for(parties, "c1").part
    stolen = envelope(identity("c3"), Header(PURPOSE.session, PURPOSE.give, "c3", b"", b"", b""), [part])
    with pytest.raises(Forged, match="open"):
        parties["c1"].received(only_part(stolen))


@pytest.mark.parametrize(
    "other",
    [
        key_setup("another run", b"plan", ROSTER),
        key_setup("run", b"another plan", ROSTER),
        key_setup("run", b"plan", roster(3)),
        catch_up("run", b"plan", ROSTER, 1),
    ],
)
def test_a_delivery_for_another_purpose_is_refused(parties: dict[ClientId, Party], other: Purpose) -> None:
    joined = [party.joined(other) for party in parties.values()]
    given = parties["c0"].given(joined, other)
    with pytest.raises(Inconsistent):
        parties["c1"].received(extracts_by_receiver(given)["c1"])
    with pytest.raises(Inconsistent):
        parties["c0"].given(joined)


def test_each_round_has_a_catch_up_of_its_own() -> None:
    sessions = {catch_up("run", b"plan", ROSTER, round).session for round in range(5)}
    assert len(sessions | {PURPOSE.session}) == 6


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


# ---- what a giver gives to


def test_a_giver_seals_to_nobody_who_did_not_sign_a_one_use_key(parties: dict[ClientId, Party]) -> None:
    good = [party.joined() for party in parties.values()]
    header = Header(PURPOSE.session, PURPOSE.join, "c1", b"", b"", b"")
    by_server = envelope(Identity(bytes(32)), header, [AgreementKey.generate(os.urandom).public])
    swapped = Envelope(good[1].signed, (AgreementKey.generate(os.urandom).public,))
    stranger = join("c9", identity("c9"), PURPOSE, AgreementKey.generate(os.urandom))
    other_step = envelope(identity("c1"), msgspec.structs.replace(header, step=PURPOSE.receive), good[1].parts)
    two = envelope(identity("c1"), header, [*good[1].parts, b""])
    low_order = envelope(identity("c1"), header, [bytes(32)])
    for bad in (by_server, swapped, stranger, other_step, two, low_order):
        with pytest.raises((Forged, Inconsistent)):
            parties["c0"].given([good[0], bad])
    with pytest.raises(Inconsistent, match="twice"):
        parties["c0"].given([*good, good[1]])
    with pytest.raises(Inconsistent, match="twice"):
        parties["c0"].given([*good, Party("c1").joined()])


def test_no_two_packages_share_a_sealing_key(parties: dict[ClientId, Party]) -> None:
    """One secret to four receivers: under one key and the fixed nonce the ciphertexts would be equal."""
    given = parties["c0"].given([party.joined() for party in parties.values()])
    packages = [msgspec.msgpack.decode(part, type=Package) for part in given.parts]
    assert len({package.sealed[: len(SECRET)] for package in packages}) == len({p.ephemeral for p in packages}) == 4


# ---- the server


def server(
    receivers: tuple[ClientId, ...] = names(4), givers: tuple[ClientId, ...] = ("c0", "c1", "c2")
) -> DeliveryServer:
    return DeliveryServer(
        ROSTER,
        PURPOSE,
        REQUESTS,
        receivers,
        givers,
    )


@dataclass
class Line:
    """The transport: some clients are silent from an exchange on, some replies are replaced."""

    parties: dict[ClientId, Party]
    silent: dict[ClientId, int] = field(default_factory=dict)
    replaced: dict[tuple[int, ClientId], bytes] = field(default_factory=dict)
    asked: list[Messages] = field(default_factory=list)

    def __call__(self, requests: Messages) -> list[tuple[ClientId, bytes]]:
        self.asked.append(requests)
        turn = {JoinRequest.KIND: 0, MakeKeyRequest.KIND: 1, ReceiveKeyRequest.KIND: 2}[
            next(iter(requests.values()))[3]
        ]
        replies = []
        for name, data in requests.items():
            if self.silent.get(name, 9) > turn:
                replies.append((name, self.replaced.get((turn, name)) or self.parties[name].handle(data)))
        return replies


def holders(parties: dict[ClientId, Party]) -> set[ClientId]:
    return {name for name, party in parties.items() if party.secret == SECRET}


def test_everybody_who_joined_holds_the_secret(parties: dict[ClientId, Party]) -> None:
    delivered = drive(server(), Line(parties))
    assert delivered == Delivered(names(4), b"about", {})
    assert holders(parties) == set(names(4))


@pytest.mark.parametrize("turn", [0, 2])
def test_who_stays_silent_stays_without(parties: dict[ClientId, Party], turn: int) -> None:
    delivered = drive(server(), Line(parties, {"c3": turn}))
    assert delivered.holders == ("c0", "c1", "c2") and delivered.faults == {}
    assert holders(parties) == {"c0", "c1", "c2"}


@pytest.mark.parametrize("dead", [1, 2])
def test_a_dead_giver_is_followed_by_the_next(parties: dict[ClientId, Party], dead: int) -> None:
    line = Line(parties, dict.fromkeys(names(dead), 1))
    delivered = drive(server(), line)
    assert [set(requests) for requests in line.asked[1 : 2 + dead]] == [{name} for name in names(dead + 1)]
    assert delivered.holders == names(4)[dead:]  # the dead do not receive either
    assert holders(parties) == set(names(4)[dead:])


def test_without_a_living_giver_the_delivery_aborts(parties: dict[ClientId, Party]) -> None:
    with pytest.raises(RoundAborted, match="no client is left"):
        drive(server(), Line(parties, dict.fromkeys(names(3), 1)))
    assert holders(parties) == set()


def test_with_nobody_joined_there_is_nothing_to_deliver(parties: dict[ClientId, Party]) -> None:
    assert drive(server(), Line(parties, dict.fromkeys(names(4), 0))) == Delivered((), b"", {})


def bad_gifts(parties: dict[ClientId, Party]) -> dict[str, bytes]:
    joined = [party.joined() for party in parties.values()]
    good = parties["c0"].given(joined)
    header = Header(PURPOSE.session, PURPOSE.give, "c0", b"", b"", b"")

    def made(*parts: bytes) -> bytes:
        return encode(envelope(identity("c0"), header, parts))

    stranger = msgspec.structs.replace(msgspec.msgpack.decode(good.parts[0], type=Package), receiver="c9")
    return {
        "a refusal": encode(Refusal("failed")),
        "garbage": b"\x00",
        "signed by another": encode(parties["c1"].given(joined)),
        "a step back": encode(parties["c0"].joined()),
        "no packages": made(),
        "packages that are none": made(b"x", b"y"),
        "a receiver left out": made(*good.parts[:3]),
        "a receiver who did not join": made(*good.parts, msgspec.msgpack.encode(stranger)),
    }


@pytest.mark.parametrize("case", bad_gifts({name: Party(name) for name in names(4)}))
def test_a_giver_who_gives_something_else_is_at_fault_and_followed_by_the_next(
    parties: dict[ClientId, Party], case: str
) -> None:
    delivered = drive(server(), Line(parties, {}, {(1, "c0"): bad_gifts(parties)[case]}))
    assert set(delivered.faults) == {"c0"}
    assert delivered.holders == names(4) and holders(parties) == set(names(4))


def test_a_receivers_forged_word_does_not_count(parties: dict[ClientId, Party]) -> None:
    header = Header(PURPOSE.session, PURPOSE.receive, "c3", b"", b"", b"")
    other_word = encode(envelope(identity("c3"), header, [b"another key"]))
    assert drive(server(), Line(parties, {}, {(2, "c3"): other_word})).holders == ("c0", "c1", "c2")
    two_words = encode(envelope(identity("c3"), header, [b"about", b"about"]))
    delivered = drive(server(), Line({n: Party(n) for n in names(4)}, {}, {(2, "c3"): two_words}))
    assert delivered.holders == ("c0", "c1", "c2") and set(delivered.faults) == {"c3"}


def test_two_packages_for_one_receiver_are_not_two_receivers(parties: dict[ClientId, Party]) -> None:
    given = parties["c0"].given([party.joined() for party in parties.values()])
    doubled = envelope(
        identity("c0"), Header(PURPOSE.session, PURPOSE.give, "c0", b"", b"", b""), [*given.parts, given.parts[1]]
    )
    assert set(extracts_by_receiver(doubled)) == set(names(4))
    with pytest.raises(MalformedMessage):
        extracts_by_receiver(envelope(identity("c0"), Header(b"", 7, "c0", b"", b"", b""), [b""]))


@pytest.mark.parametrize(
    "message",
    [
        JoinRequest(b"x"),
        CatchUpRequest("run", 3),
        MakeKeyRequest("run", (Envelope(Signed(b"", b""), (b"",)),)),
        SealModelRequest("run", 3, ()),
        ReceiveKeyRequest("run", Extract(Signed(b"h", b"s"), b"p", 1, 2, b"way")),
        InstallModelRequest("run", 3, Extract(Signed(b"h", b"s"), b"p", 1, 2, b"way"), ()),
    ],
)
def test_messages_of_a_delivery_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message), type(message)) == message


def test_a_package_prints_no_secret(parties: dict[ClientId, Party]) -> None:
    given = package_for(parties, "c1")
    package, secret = parties["c1"].received(given)
    assert repr(secret)[2:-1] not in repr(package)


def test_a_receiver_is_shown_one_package_and_no_other(parties: dict[ClientId, Party]) -> None:
    """The proof is made of hashes: 32 bytes for each doubling of the receivers."""
    given = package_for(parties, "c1")
    assert (given.index, given.parts, len(given.path)) == (1, 4, 64)
    body = given.signed.authenticate(ROSTER).body
    assert climb(leaf(given.part), given.index, given.parts, given.path) == body


def test_what_a_receiver_says_is_short_and_only_a_giver_may_say_more(parties: dict[ClientId, Party]) -> None:
    def says(name: ClientId, step: int, part: bytes) -> bytes:
        return encode(envelope(identity(name), Header(PURPOSE.session, step, name, b"", b"", b""), [part]))

    server = DeliveryServer(ROSTER, PURPOSE, REQUESTS, ["c1", "c2"], ["c0"])
    joined = encode(parties["c1"].joined())
    requests = server.advance({"c1": joined, "c2": says("c2", PURPOSE.join, bytes(5000))}.items())
    assert set(server.faults) == {"c2"} and "at most 4096 are honest" in server.faults["c2"]
    secret = os.urandom(1 << 20)
    wanted = list(decode(requests["c0"], MakeKeyRequest).joined)
    given = give("c0", identity("c0"), PURPOSE, ROSTER, wanted, b"about", secret, os.urandom)
    requests = server.advance([("c0", encode(given))])
    assert parties["c1"].received(decode(requests["c1"], ReceiveKeyRequest).given)[1] == secret
    assert server.advance([("c1", says("c1", PURPOSE.receive, bytes(5000)))]) == {}
    assert set(server.faults) == {"c1", "c2"} and server.result.holders == ()
