"""What key list a client takes in exchange 1."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Advertised,
    Envelope,
    Header,
    InputRequest,
    KeysRequest,
    SharesRequest,
    envelope,
)
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.states import Advertising, Sharing
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage, SessionSpent
from protocols.primitives import AgreementKey
from protocols.wire import decode, encode
from tests.protocols.cohort import (
    CELLS,
    MASKED,
    Wire,
    clean_run,
    identity,
    make,
    names,
    roster,
    shares_request,
    taken_out,
)

LOW_ORDER = bytes(32)


@pytest.fixture
def wire() -> Wire:
    """A whole secagg round of five (t = 4), with every client as it was before each exchange."""
    return clean_run(make("secagg"))


def advertise(name: ClientId, mask_key: bytes, share_key: bytes, signer: ClientId | None = None) -> Envelope:
    header = Header(make("secagg").terms.session, Step.KEYS, name, b"", b"", b"")
    return envelope(identity(signer or name), header, [msgspec.msgpack.encode(Advertised(mask_key, share_key, b""))])


def fresh() -> bytes:
    return AgreementKey.generate(os.urandom).public


def tampered_lists(listed: list[Envelope]) -> dict[str, tuple[SharesRequest, type[Exception], str]]:
    """What a server could show c1, the error and a word of its reason."""
    theirs = msgspec.msgpack.decode(listed[0].parts[0], type=Advertised)
    own = msgspec.msgpack.decode(listed[1].parts[0], type=Advertised)
    honest = shares_request(listed, "c1")

    def swapped(place: int, other: Envelope, rest: list[Envelope] = listed) -> SharesRequest:
        return shares_request([*rest[:place], other, *rest[place + 1 :]], "c1")

    def shown(*advertised: Envelope) -> SharesRequest:
        return msgspec.structs.replace(honest, advertised=advertised)

    def entered(entries: bytes) -> SharesRequest:
        return msgspec.structs.replace(honest, entries=entries)

    near = honest.advertised
    two = advertise("c0", fresh(), fresh())
    stranger = advertise("c9", fresh(), fresh())
    return {
        "own keys missing": (shares_request([listed[0], *listed[2:]], "c1"), Inconsistent, "lacks this client"),
        "own keys swapped": (swapped(1, advertise("c1", fresh(), fresh())), Inconsistent, "other keys of c1"),
        "own keys re-signed": (
            swapped(1, advertise("c1", own.mask_key, own.share_key)),
            Inconsistent,
            "other keys of c1",
        ),
        "own keys signed by another": (
            swapped(1, advertise("c1", fresh(), fresh(), "c3")),
            Inconsistent,
            "other keys of c1",
        ),
        "own keys among the neighbours'": (shown(near[0], listed[1], *near[1:]), Inconsistent, "neighbours"),
        "other keys of its own among the neighbours'": (
            shown(advertise("c1", fresh(), fresh()), *near),
            Inconsistent,
            "neighbours",
        ),
        "one client twice": (shares_request([listed[0], *listed], "c1"), Inconsistent, "twice"),
        "one client with two lists of keys": (
            shares_request([listed[0], two, *listed[1:]], "c1"),
            Inconsistent,
            "twice",
        ),
        "one client's keys shown twice": (shown(near[0], *near), Inconsistent, "neighbours"),
        "two lists of one client's keys shown": (shown(two, *near), Inconsistent, "neighbours"),
        "unsorted": (shares_request(listed[::-1], "c1"), Inconsistent, "unsorted"),
        "keys shown out of order": (shown(*near[::-1]), Inconsistent, "in order"),
        "below the minimum": (shares_request(listed[:2], "c1"), Inconsistent, "below the minimum"),
        "empty": (SharesRequest((), b"", ()), Inconsistent, "lacks this client"),
        "nobody's keys shown": (shown(), Inconsistent, "neighbours"),
        "a neighbour's keys not shown": (shown(*near[:3]), Inconsistent, "neighbours"),
        "keys shown of who is no member": (
            msgspec.structs.replace(shares_request(listed[:4], "c1"), advertised=near),
            Inconsistent,
            "neighbours",
        ),
        "no entries": (entered(b""), Inconsistent, "one entry for each"),
        "an entry less": (entered(honest.entries[:-32]), Inconsistent, "one entry for each"),
        "an entry more": (entered(honest.entries + bytes(32)), Inconsistent, "one entry for each"),
        "an entry cut short": (entered(honest.entries[:-1]), Inconsistent, "one entry for each"),
        "two entries swapped": (
            entered(honest.entries[:64] + honest.entries[96:128] + honest.entries[64:96] + honest.entries[128:]),
            Inconsistent,
            "other keys of c2",
        ),
        "a false entry of a neighbour": (entered(honest.entries[:-32] + bytes(32)), Inconsistent, "other keys of c4"),
        "other keys than a neighbour's entry": (
            shown(*near[:3], advertise("c4", fresh(), fresh())),
            Inconsistent,
            "other keys of c4",
        ),
        "a key of another client": (swapped(4, advertise("c4", theirs.mask_key, fresh())), Inconsistent, "key twice"),
        "this client's own key": (swapped(4, advertise("c4", fresh(), own.share_key)), Inconsistent, "key twice"),
        "one key for both": (swapped(4, advertise("c4", *[fresh()] * 2)), Inconsistent, "key twice"),
        "a share key of low order": (swapped(4, advertise("c4", fresh(), LOW_ORDER)), Forged, "low order"),
        "a share key of another length": (swapped(4, advertise("c4", fresh(), b"short")), Forged, "invalid"),
        "a stranger": (shares_request([*listed, stranger], "c1"), Inconsistent, "not on the roster"),
        "a stranger's keys shown": (shown(*near[:3], stranger), Inconsistent, "not on the roster"),
        "keys signed by another": (swapped(4, advertise("c4", fresh(), fresh(), "c3")), Forged, "signature of c4"),
        "an unsigned key": (swapped(4, Envelope(listed[4].signed, (listed[3].parts[0],))), Forged, "not what it"),
        "no keys": (swapped(4, envelope(identity("c4"), replaced(listed[4]), [])), MalformedMessage, "0 parts"),
    }


def replaced(signed: Envelope, **changes: object) -> Header:
    return msgspec.structs.replace(signed.signed.authenticate(roster(5)), **changes)


@pytest.mark.parametrize("case", tampered_lists([advertise(name, fresh(), fresh()) for name in names(5)]))
def test_a_tampered_key_list_is_refused(wire: Wire, case: str) -> None:
    request, error, reason = tampered_lists(wire.key_list())[case]
    victim = wire.client(Step.SHARES)
    with pytest.raises(error, match=reason):
        victim.handle(encode(request))
    with pytest.raises(SessionSpent):
        victim.handle(wire.requests[Step.SHARES, "c1"])


def test_a_shorter_key_list_above_the_minimum_is_another_cohort_with_its_own_threshold(wire: Wire) -> None:
    victim = wire.client(Step.SHARES)
    victim.handle(encode(shares_request(wire.key_list()[:4], "c1")))
    assert isinstance(victim._state, Sharing)
    assert victim._state.cohort.graph.threshold == 3


def test_an_honest_key_list_is_what_the_tampered_ones_are_made_from(wire: Wire) -> None:
    assert encode(shares_request(wire.key_list(), "c1")) == wire.requests[Step.SHARES, "c1"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_server_drops_unusable_keys_before_it_relays_them(cell: str) -> None:
    """Without masks there are no keys to look at."""
    own = decode(clean_run(make(cell)).replies[Step.KEYS, "c0"], Envelope)
    stolen = msgspec.msgpack.decode(own.parts[0], type=Advertised).mask_key
    same = fresh()
    for bad in ((LOW_ORDER, fresh()), (fresh(), LOW_ORDER), (b"", fresh()), (stolen, fresh()), (same, same)):
        cohort = make(cell)
        header = Header(cohort.terms.session, Step.KEYS, "c3", b"", b"", b"")
        forged = encode(envelope(identity("c3"), header, [msgspec.msgpack.encode(Advertised(*bad, b""))]))

        def swap(step: Step, name: ClientId, data: bytes, forged: bytes = forged, own: Envelope = own) -> bytes:
            return {"c3": forged, "c0": encode(own)}.get(name, data) if step == Step.KEYS else data

        server = AggregationServer(cohort.terms, dict.fromkeys(cohort.clients, b""))
        requests = server.advance(Wire(cohort.clients, on_reply=swap)(server.open()))
        assert ("c3" in requests) == (cell not in MASKED)
        assert ("c3" in server.faults) == (cell in MASKED)


class LowOrder(AggregationClient):
    """Advertises a mask key of low order, so that its pairwise masks would be known to all."""

    def _advertise(self) -> tuple[Advertising, Envelope]:  # type: ignore[override]
        state, honest = super()._advertise()
        assert isinstance(state, Advertising)
        body = msgspec.structs.replace(msgspec.msgpack.decode(honest.parts[0], type=Advertised), mask_key=LOW_ORDER)
        own = self._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
        return replace(state, own=own), own


def test_a_mask_key_of_low_order_is_refused_before_the_update_is_asked_for() -> None:
    """A server that relays what it should have dropped gets nothing, and nobody pays privacy for it."""
    cohort = make("secagg", types={"c4": LowOrder})
    listed = [decode(each.handle(encode(KeysRequest(b""))), Envelope) for each in cohort.clients.values()]
    dealt = {
        name: decode(each.handle(encode(shares_request(listed, name))), Envelope)
        for name, each in cohort.clients.items()
    }
    given = [taken_out(dealt[peer], place) for peer, place in (("c0", 1), ("c2", 2), ("c3", 2), ("c4", 2))]
    four = InputRequest(mark(names(5), names(4)), tuple(given[:3]))
    copy.copy(cohort.clients["c1"]).handle(encode(four))
    assert cohort.asked_for_update == ["c1"]  # without c4 all is well
    with pytest.raises(Forged, match="low order"):
        cohort.clients["c1"].handle(encode(InputRequest(mark(names(5), names(5)), tuple(given))))
    assert cohort.asked_for_update == ["c1"]
