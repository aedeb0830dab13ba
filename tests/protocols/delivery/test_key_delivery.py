"""The server's side of a key's delivery: givers in turn, until enough receivers hold what one of them gave."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import msgspec
import pytest

from protocols.aggregation.messages import Envelope, Refusal
from protocols.aggregation.session import Step
from protocols.base import ClientId, drive
from protocols.delivery.client import give
from protocols.delivery.messages import JoinRequest, MakeKeyRequest, Package, ReceiveKeyRequest, ShareKeyRequest
from protocols.delivery.server import Delivered, KeyDelivery, Requests
from protocols.errors import RoundAborted
from protocols.wire import decode, encode
from tests.protocols.cohort import identity, names
from tests.protocols.delivery.parties import ROSTER, SESSION, Line, Party, about, everybody, secret_of, signed

REQUESTS = Requests(JoinRequest(b""), partial(MakeKeyRequest, "run", 0), partial(ReceiveKeyRequest, "run", 0))
GIVERS = names(3)


@pytest.fixture
def parties() -> dict[ClientId, Party]:
    return everybody()


def server(needed: int = 4, requests: Requests = REQUESTS, givers: tuple[ClientId, ...] = GIVERS) -> KeyDelivery:
    return KeyDelivery(ROSTER, SESSION, requests, names(4), givers, needed)


def holders(parties: Mapping[ClientId, Party], giver: ClientId) -> set[ClientId]:
    return {name for name, party in parties.items() if party.held == (about(giver), secret_of(giver))}


def asked(line: Line) -> list[set[ClientId]]:
    return [set(requests) for requests in line.asked]


EVERYBODY = set(names(4))


def test_everybody_who_joined_holds_what_the_first_giver_gave(parties: dict[ClientId, Party]) -> None:
    line = Line(parties)
    delivered = drive(server(), line)
    assert (delivered.about, set(delivered.replies), delivered.faults) == (about("c0"), EVERYBODY, {})
    assert holders(parties, "c0") == EVERYBODY
    assert asked(line) == [EVERYBODY, {"c0"}, EVERYBODY]


def test_the_result_holds_what_receivers_signed(parties: dict[ClientId, Party]) -> None:
    """What they say is for the caller to read: a tag of their model, for instance."""
    for name, reply in drive(server(), Line(parties)).replies.items():
        assert reply.open(ROSTER, SESSION, Step.RECEIVE_KEY, name).sender == name
        assert reply.parts == (about("c0"),)


def test_a_key_that_the_run_has_already_is_shared_in_the_same_way(parties: dict[ClientId, Party]) -> None:
    share = partial(ShareKeyRequest, "run", 3, about("c0"))
    delivered = drive(server(requests=Requests(REQUESTS.join, share, REQUESTS.receive, about("c0"))), Line(parties))
    assert (delivered.about, set(delivered.replies), delivered.faults) == (about("c0"), EVERYBODY, {})


@pytest.mark.parametrize("turn", [0, 2])
def test_who_stays_silent_stays_without(parties: dict[ClientId, Party], turn: int) -> None:
    line = Line(parties, {"c3": turn})
    delivered = drive(server(needed=3), line)
    assert set(delivered.replies) == holders(parties, "c0") == EVERYBODY - {"c3"}
    assert delivered.faults == {} and len(line.asked) == 3


def test_who_did_not_join_is_not_waited_for(parties: dict[ClientId, Party]) -> None:
    line = Line(parties, {"c3": 0})
    assert set(drive(server(needed=4), line).replies) == EVERYBODY - {"c3"}
    assert len(line.asked) == 3


@pytest.mark.parametrize("dead", [1, 2])
def test_a_dead_giver_is_followed_by_the_next(parties: dict[ClientId, Party], dead: int) -> None:
    line = Line(parties, dict.fromkeys(names(dead), 1))
    delivered = drive(server(needed=4 - dead), line)
    assert asked(line)[1 : 2 + dead] == [{name} for name in names(dead + 1)]
    # The dead do not receive either.
    assert set(delivered.replies) == holders(parties, f"c{dead}") == set(names(4)[dead:])


def test_without_a_living_giver_the_delivery_aborts(parties: dict[ClientId, Party]) -> None:
    with pytest.raises(RoundAborted, match="no client is left"):
        drive(server(), Line(parties, dict.fromkeys(GIVERS, 1)))
    assert all(party.held == (b"", b"") for party in parties.values())


def test_with_nobody_joined_there_is_nothing_to_deliver(parties: dict[ClientId, Party]) -> None:
    line = Line(parties, dict.fromkeys(names(4), 0))
    assert drive(server(), line) == Delivered(b"", {}, {})
    assert len(line.asked) == 1


# ---- too few holders


def test_too_few_holders_make_the_server_ask_the_next_giver(parties: dict[ClientId, Party]) -> None:
    line = Line(parties, {}, {(2, "c2"): b"", (2, "c3"): b""})
    delivered = drive(server(needed=3), line)
    assert asked(line) == [EVERYBODY, {"c0"}, EVERYBODY, {"c1"}, EVERYBODY]
    assert delivered.about == about("c1") and set(delivered.replies) == holders(parties, "c1") == EVERYBODY


def lost(turn: int, *clients: ClientId) -> dict[tuple[int, ClientId], bytes]:
    return {(turn, client): b"" for client in clients}


@pytest.mark.parametrize(
    ("hears", "best"), [((2, 3, 1), "c1"), ((3, 2, 1), "c0"), ((1, 2, 3), "c2"), ((0, 1, 0), "c1")]
)
def test_the_best_hand_out_is_the_result(
    parties: dict[ClientId, Party], hears: tuple[int, ...], best: ClientId
) -> None:
    """All givers were asked, none reached as many as needed: the caller decides whether these are enough."""
    silence: dict[tuple[int, ClientId], bytes] = {}
    for place, count in enumerate(hears):
        silence |= lost(2 + 2 * place, *names(4)[count:])
    delivered = drive(server(needed=4), line := Line(parties, {}, silence))
    assert len(line.asked) == 7
    assert delivered.about == about(best)
    assert set(delivered.replies) == set(names(4)[: max(hears)])


def test_of_two_hand_outs_that_are_as_good_the_later_counts(parties: dict[ClientId, Party]) -> None:
    """It is what its receivers took last."""
    silence = lost(2, "c3") | lost(4, "c2") | lost(6, "c0", "c1")
    assert drive(server(needed=4), Line(parties, {}, silence)).about == about("c1")


def test_a_giver_whose_packages_open_for_nobody_is_followed_by_the_next(parties: dict[ClientId, Party]) -> None:
    """To the server they look like any others: that the receivers refuse them is all that it can tell."""
    refused = {(2, name): encode(Refusal("protocol")) for name in names(4)}
    delivered = drive(server(), Line(parties, {}, refused))
    assert delivered.about == about("c1") and set(delivered.replies) == EVERYBODY
    with pytest.raises(RoundAborted, match="no client is left"):
        drive(server(givers=("c0",)), Line(everybody(), {}, refused))


# ---- what is no gift


def renamed(given: Envelope, *said: bytes) -> tuple[bytes, ...]:
    """The parts of a gift, the first of them with other words for what is in them."""
    packages = [msgspec.msgpack.decode(part, type=Package) for part in given.parts]
    other = [msgspec.structs.replace(package, about=word) for package, word in zip(packages, said, strict=False)]
    return (*map(msgspec.msgpack.encode, other), *given.parts[len(said) :])


def bad_gifts(parties: Mapping[ClientId, Party]) -> dict[str, bytes]:
    joined = [party.joined() for party in parties.values()]
    good = parties["c0"].given(joined)
    stranger = msgspec.structs.replace(msgspec.msgpack.decode(good.parts[0], type=Package), receiver="c9")
    made = partial(signed, "c0", Step.GIVE_KEY)
    return {
        "a refusal": encode(Refusal("failed")),
        "garbage": b"\x00",
        "signed by another": encode(parties["c1"].given(joined)),
        "a step back": encode(parties["c0"].joined()),
        "no packages": made(),
        "packages that are none": made(b"x", b"y"),
        "a receiver left out": made(*good.parts[:3]),
        "a receiver who did not join": made(*good.parts, msgspec.msgpack.encode(stranger)),
        "packages that say different things": made(*renamed(good, b"another key")),
        "another key than was asked for": made(*renamed(good, *[b"another key"] * 4)),
    }


@pytest.mark.parametrize("case", bad_gifts(everybody()))
def test_a_giver_who_gives_something_else_is_at_fault_and_followed_by_the_next(
    parties: dict[ClientId, Party], case: str
) -> None:
    """Asked for is c1's key, as c1 has it."""
    requests = Requests(REQUESTS.join, REQUESTS.give, REQUESTS.receive, about("c1"))
    line = Line(parties, {}, {(1, "c0"): bad_gifts(parties)[case]})
    delivered = drive(server(requests=requests), line)
    assert set(delivered.faults) == {"c0"} and delivered.about == about("c1")
    assert set(delivered.replies) == holders(parties, "c1") == EVERYBODY
    assert asked(line) == [EVERYBODY, {"c0"}, {"c1"}, EVERYBODY]


def test_who_asks_for_no_key_in_particular_takes_any_but_only_one(parties: dict[ClientId, Party]) -> None:
    bad = bad_gifts(parties)
    said = {(2, name): signed(name, Step.RECEIVE_KEY, b"word") for name in names(4)}
    line = Line(parties, {}, said | {(1, "c0"): bad["another key than was asked for"]})
    assert drive(server(), line).about == b"another key"
    line = Line(parties, {}, {(1, "c0"): bad["packages that say different things"]})
    assert drive(server(), line).about == about("c1")


# ---- what is said, and how long it may be


def test_a_receivers_forged_word_does_not_count(parties: dict[ClientId, Party]) -> None:
    about_c0 = about("c0")
    for word in (
        signed("c2", Step.RECEIVE_KEY, about_c0),
        signed("c3", Step.JOIN, about_c0),
        signed("c3", Step.RECEIVE_KEY, about_c0, about_c0),
        signed("c3", Step.RECEIVE_KEY),
        b"\x00",
    ):
        delivered = drive(server(needed=3), Line(parties, {}, {(2, "c3"): word}))
        assert set(delivered.replies) == EVERYBODY - {"c3"} and set(delivered.faults) == {"c3"}


def test_who_joins_with_something_else_is_left_out(parties: dict[ClientId, Party]) -> None:
    for word in (signed("c3", Step.JOIN, b"", b""), signed("c2", Step.JOIN, bytes(32)), encode(Refusal("policy"))):
        delivered = drive(server(), Line(parties, {}, {(0, "c3"): word}))
        assert set(delivered.replies) == EVERYBODY - {"c3"} and set(delivered.faults) == {"c3"}


def gift_of(length: int, requests: Mapping[ClientId, bytes]) -> bytes:
    joined = decode(requests["c0"], MakeKeyRequest).joined
    return encode(give("c0", identity("c0"), SESSION, ROSTER, joined, b"about", os.urandom(length), os.urandom))


def test_a_givers_reply_may_have_a_package_of_4096_bytes_for_each_who_joined_and_no_more(
    parties: dict[ClientId, Party],
) -> None:
    largest = 4096 + 2 * 4096
    for length, next_asked in ((4096, {"c1", "c2"}), (largest // 2, {"c1"})):
        delivery = KeyDelivery(ROSTER, SESSION, REQUESTS, ["c1", "c2"], ["c0", "c1"], 2)
        gift = gift_of(length, delivery.advance((name, encode(parties[name].joined())) for name in ("c1", "c2")))
        assert (len(gift) <= largest) == (next_asked == {"c1", "c2"})
        assert set(delivery.advance([("c0", gift)])) == next_asked
        assert delivery.faults == {} or f"at most {largest} are honest" in delivery.faults["c0"]


def test_what_a_receiver_says_is_short(parties: dict[ClientId, Party]) -> None:
    replaced = {(0, "c3"): signed("c3", Step.JOIN, bytes(5000)), (2, "c2"): signed("c2", Step.RECEIVE_KEY, bytes(5000))}
    delivered = drive(server(needed=2), Line(parties, {}, replaced))
    assert set(delivered.replies) == {"c0", "c1"} and set(delivered.faults) == {"c2", "c3"}
    assert all("at most 4096 are honest" in fault for fault in delivered.faults.values())


@pytest.mark.parametrize("key", [bytes(32), b"short"], ids=["of low order", "too short"])
def test_one_receiver_whose_key_nobody_can_seal_to_does_not_stop_the_others(
    parties: dict[ClientId, Party], key: bytes
) -> None:
    """Else a single client could keep a run from ever starting, and the server would blame its givers."""
    delivered = drive(server(needed=3), Line(parties, {}, {(0, "c3"): signed("c3", Step.JOIN, key)}))
    assert set(delivered.replies) == EVERYBODY - {"c3"} and set(delivered.faults) == {"c3"}
