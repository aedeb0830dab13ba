"""Truncated, flipped, replayed and swapped messages, both ways, at each exchange: a dropout, never a wrong sum."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import (
    Advertised,
    ConsistencyRequest,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    Opened,
    SharesRequest,
    Signed,
    UnmaskRequest,
    envelope,
)
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.errors import ProtocolError, RoundAborted, SessionSpent
from protocols.wire import Message, decode, encode
from tests.protocols.cohort import CELLS, Tamper, Wire, clean_run, identity, make, names, steps_of

VICTIM = "c1"
CASES = [(cell, step) for cell in CELLS for step in steps_of(cell)]
each_exchange = pytest.mark.parametrize(("cell", "step"), CASES)


@cache
def earlier_session(cell: str) -> Wire:
    """What the same five clients said in attempt 1; the tests run attempt 2."""
    return clean_run(make(cell, attempt=1))


def only(step: Step, change: Callable[[bytes], bytes | None]) -> Tamper:
    """Change the victim's message in one exchange."""
    return lambda at, name, data: change(data) if (at, name) == (step, VICTIM) else data


def play(cell: str, **tamper: Tamper) -> tuple[Wire, Aggregate | RoundAborted]:
    """A round over a wire that tampers. Whatever is accepted must be right; any other exception fails the test."""
    cohort = make(cell, attempt=2)
    wire = Wire(cohort.clients, **tamper)  # type: ignore[arg-type]
    try:
        aggregate = cohort.run(wire)
    except RoundAborted as aborted:
        return wire, aborted
    assert cohort.is_right(aggregate)
    return wire, aggregate


def spoiled_reply(cell: str, step: Step, change: Callable[[bytes], bytes | None]) -> None:
    """A reply that must be refused: its sender is at fault and dropped, the four others go on."""
    _, result = play(cell, on_reply=only(step, change))
    assert isinstance(result, Aggregate)
    assert set(result.faults) == {VICTIM} and set(result.dropped) == {VICTIM}
    assert (VICTIM in result.contributors) == (step > Step.INPUT)


def spoiled_request(cell: str, step: Step, change: Callable[[bytes], bytes | None]) -> None:
    """A request that must be refused: the client's session is spent, the four others go on."""
    wire, result = play(cell, on_request=only(step, change))
    assert isinstance(wire.refusals[VICTIM], ProtocolError)
    assert isinstance(result, Aggregate)
    assert set(result.dropped) == {VICTIM}
    for request in (wire.requests[step, VICTIM], wire.requests[Step.KEYS, VICTIM]):
        with pytest.raises(SessionSpent):
            wire.clients[VICTIM].handle(request)


# ---- truncated


@each_exchange
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_message_is_a_dropout(cell: str, step: Step, share: float) -> None:
    spoiled_reply(cell, step, lambda data: data[: int(share * len(data))])
    spoiled_request(cell, step, lambda data: data[: min(int(share * len(data)), len(data) - 1)])


@each_exchange
def test_a_byte_more_is_a_dropout(cell: str, step: Step) -> None:
    spoiled_reply(cell, step, lambda data: data + b"\x00")
    spoiled_request(cell, step, lambda data: data + b"\x00")


# ---- flipped


def flipped(data: bytes, place: float, bit: int) -> bytes:
    changed = bytearray(data)
    changed[int(place * len(data))] ^= 1 << bit
    return bytes(changed)


places = st.floats(0, 1, exclude_max=True)
bits = st.integers(0, 7)


@each_exchange
@settings(max_examples=12)
@given(place=places, bit=bits)
def test_a_flipped_bit_in_a_reply_drops_its_sender(cell: str, step: Step, place: float, bit: int) -> None:
    """No bit of a reply is free: what is not signed is framing, and there is one framing for one message here."""
    spoiled_reply(cell, step, lambda data: flipped(data, place, bit))


@each_exchange
@settings(max_examples=12)
@given(place=places, bit=bits)
def test_a_flipped_bit_in_a_request_changes_nothing_or_drops_its_receiver(
    cell: str, step: Step, place: float, bit: int
) -> None:
    wire, result = play(cell, on_request=only(step, lambda data: flipped(data, place, bit)))
    assert isinstance(result, Aggregate)
    if VICTIM in wire.refusals:
        assert set(result.dropped) == {VICTIM}
    elif step == Step.CONSISTENCY:  # one bit less is another survivor set, which the client may sign and nobody counts
        assert set(result.dropped) == {VICTIM} and "another survivor set" in result.faults[VICTIM]
    elif step == Step.INPUT:  # the proof of a share that opens is not looked at
        sent = wire.requests[step, VICTIM]
        assert not result.dropped and opened_parts(flipped(sent, place, bit)) == opened_parts(sent)
    else:  # the announcement of exchange 0 is not protocols' to check
        assert step == Step.KEYS and not result.dropped


def opened_parts(request: bytes) -> tuple[bytes, list[bytes]]:
    """All of the request of exchange 2 that a client acts on."""
    asked = decode(request, InputRequest)
    return asked.shared, [given.part for given in asked.dealt]


# ---- replayed and swapped


@each_exchange
def test_the_previous_sessions_reply_is_a_dropout(cell: str, step: Step) -> None:
    spoiled_reply(cell, step, lambda data: earlier_session(cell).replies[step, VICTIM])


@each_exchange
def test_the_previous_sessions_request_is_refused_where_it_says_anything(cell: str, step: Step) -> None:
    old = earlier_session(cell).requests[step, VICTIM]
    if step in (Step.KEYS, Step.CONSISTENCY) or cell not in ("secagg", "ckks"):
        # The same bytes in both sessions: an announcement, names, or nothing.
        wire, result = play(cell, on_request=only(step, lambda data: old))
        assert wire.requests[step, VICTIM] == old and isinstance(result, Aggregate) and not result.dropped
    else:
        spoiled_request(cell, step, lambda data: old)


@pytest.mark.parametrize(("cell", "step"), [case for case in CASES if case[1] > Step.KEYS])
def test_the_previous_exchanges_messages_are_a_dropout(cell: str, step: Step) -> None:
    order = steps_of(cell)
    before = order[order.index(step) - 1]
    kept: dict[str, bytes] = {}

    def keep_then_replay(kind: str) -> Tamper:
        def tamper(at: Step, name: ClientId, data: bytes) -> bytes:
            if name == VICTIM and at == before:
                kept[kind] = data
            return kept[kind] if name == VICTIM and at == step else data

        return tamper

    _, result = play(cell, on_reply=keep_then_replay("reply"))
    assert isinstance(result, Aggregate) and set(result.faults) == {VICTIM}
    wire, result = play(cell, on_request=keep_then_replay("request"))
    assert isinstance(result, Aggregate) and isinstance(wire.refusals[VICTIM], SessionSpent)


@each_exchange
def test_another_clients_reply_is_a_dropout(cell: str, step: Step) -> None:
    others: dict[Step, bytes] = {}

    def swap(at: Step, name: ClientId, data: bytes) -> bytes:
        if name == "c0":
            others[at] = data  # c0 is asked before c1
        return others[at] if (at, name) == (step, VICTIM) else data

    _, result = play(cell, on_reply=swap)
    assert isinstance(result, Aggregate) and set(result.faults) == {VICTIM}


@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_another_clients_shares_are_refused(cell: str) -> None:
    kept: list[bytes] = []

    def swap(at: Step, name: ClientId, data: bytes) -> bytes:
        if at == Step.INPUT and name == "c0":
            kept.append(data)
        return kept[0] if (at, name) == (Step.INPUT, VICTIM) else data

    wire, result = play(cell, on_request=swap)
    assert VICTIM in wire.refusals and isinstance(result, Aggregate)


@each_exchange
def test_replies_that_come_twice_or_unasked_count_once(cell: str, step: Step) -> None:
    cohort = make(cell)

    class Echo(Wire):
        def __call__(self, requests):  # type: ignore[no-untyped-def]
            for name, data in super().__call__(requests):
                yield name, data
                yield name, data
                yield "stranger", data

    aggregate = cohort.run(Echo(cohort.clients))
    assert aggregate.contributors == names(5)
    assert cohort.is_right(aggregate)
    assert "stranger" in aggregate.faults


# ---- any bytes at all, at the client


signed = st.builds(Signed, st.binary(max_size=40), st.binary(max_size=70))


@cache
def whole_round(cell: str) -> Wire:
    return clean_run(make(cell, attempt=2))


@st.composite
def foreign_requests(draw: st.DrawFn, cell: str) -> bytes:
    """Garbage; real messages, cut and joined; well-formed ones with any content; ones that a dishonest peer signed."""
    wire = whole_round(cell)
    real = st.sampled_from(sorted(wire.requests.values()) + sorted(wire.replies.values()))
    cohort = make(cell, attempt=2)

    def from_peer(step: Step, parts: list[bytes], keys: bytes) -> Envelope:
        return envelope(identity("c3"), Header(cohort.terms.session, step, "c3", keys, b"", b""), parts)

    bodies = st.one_of(
        st.binary(max_size=40),
        st.builds(Advertised, st.binary(max_size=33), st.binary(max_size=33), st.binary(max_size=4)).map(packed),
        st.builds(Dealt, st.binary(max_size=99), st.binary(max_size=32), st.binary(max_size=32)).map(packed),
    )
    key_lists = st.sampled_from([b"", *{keys_of(wire, cell)}])
    peers = st.builds(from_peer, st.sampled_from(list(Step)), st.lists(bodies, max_size=5), key_lists)
    envelopes = st.one_of(peers, st.sampled_from([decode(reply, Envelope) for reply in wire.replies.values()]))
    numbers = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 6)
    heads = envelopes.map(lambda e: e.signed)
    relayed = st.one_of(
        st.builds(Extract, heads, bodies, numbers, numbers, st.binary(max_size=99)), st.sampled_from(extracts_of(wire))
    )
    members = st.one_of(st.just(names(5)), st.lists(st.one_of(st.sampled_from(names(6)), st.text()), max_size=6))
    entries = st.one_of(st.sampled_from(entries_of(wire)), st.binary(max_size=200))
    marks = st.one_of(st.binary(max_size=1), st.binary(max_size=9))
    messages: st.SearchStrategy[Message] = st.one_of(
        st.builds(SharesRequest, members.map(tuple), entries, st.lists(envelopes, max_size=6).map(tuple)),
        st.builds(InputRequest, marks, st.lists(relayed, max_size=6).map(tuple)),
        st.builds(ConsistencyRequest, marks),
        st.builds(UnmaskRequest, st.lists(st.one_of(signed, envelopes.map(lambda e: e.signed)), max_size=6).map(tuple)),
    )
    spliced = st.builds(
        lambda left, right, i, j: left[: int(i * len(left))] + right[int(j * len(right)) :], real, real, places, places
    )
    framed = st.builds(lambda kind, body: b"SF\x01" + bytes([kind]) + body, st.integers(0, 40), st.binary(max_size=60))
    return draw(st.one_of(st.binary(max_size=60), framed, spliced, real, messages.map(encode)))


def packed(body: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(body)


def extracts_of(wire: Wire) -> list[Extract]:
    inputs = [data for (step, _), data in wire.requests.items() if step == Step.INPUT]
    return [each for data in inputs for each in decode(data, InputRequest).dealt] or [no_extract()]


def entries_of(wire: Wire) -> list[bytes]:
    asked = [data for (step, _), data in wire.requests.items() if step == Step.SHARES]
    return [decode(data, SharesRequest).entries for data in asked] or [b""]


def no_extract() -> Extract:
    return Extract(Signed(b"", b""), b"", 0, 1, b"")


def keys_of(wire: Wire, cell: str) -> bytes:
    reply = decode(wire.replies[Step.INPUT, VICTIM], Envelope)
    return reply.signed.open(make(cell, attempt=2).terms.roster, make(cell, attempt=2).terms.session, Step.INPUT).keys


@pytest.mark.parametrize("cell", ["plain", "secagg"])
@settings(max_examples=150)
@given(data=st.data())
def test_a_client_raises_nothing_but_protocol_errors_and_is_spent_then(cell: str, data: st.DataObject) -> None:
    wire = whole_round(cell)
    step = data.draw(st.sampled_from(steps_of(cell)))
    client: AggregationClient = copy.copy(wire.before[step, VICTIM])
    request = data.draw(foreign_requests(cell))
    try:
        reply = client.handle(request)
    except ProtocolError:
        with pytest.raises(SessionSpent):
            client.handle(wire.requests[step, VICTIM])
    else:  # it was, or was as good as, the request of this exchange
        header = decode(reply, Envelope).signed.authenticate(make(cell, attempt=2).terms.roster)
        assert header.sender == VICTIM and header.step == step


# ---- any signed content at all, at the server


@each_exchange
@settings(max_examples=15)
@given(parts=st.lists(st.binary(max_size=20), max_size=6), seed=st.binary(max_size=33), data=st.data())
def test_a_dishonest_members_signed_nonsense_is_its_own_dropout(
    cell: str, step: Step, parts: list[bytes], seed: bytes, data: st.DataObject
) -> None:
    """Rightly signed for this exchange and key list, with any body but a vector of the right length."""

    def nonsense(reply: bytes) -> bytes:
        honest = decode(reply, Envelope)
        header = decode_header(honest)
        body = data.draw(
            st.sampled_from(
                [
                    parts,
                    [packed(Opened(tuple(parts)))],
                    [packed(Opened((b"x",) * 5))],
                    [packed(Opened((b"x" * 33,) * 5))],
                    [packed(Advertised(part, bytes(32), b"")) for part in parts[:1]],
                    [*honest.parts, b"more"],
                ]
            )
        )
        forged = Header(header.session, header.step, header.sender, header.keys, seed, b"")
        return encode(envelope(identity(VICTIM), forged, body))

    _, result = play(cell, on_reply=only(step, nonsense))
    assert isinstance(result, Aggregate)
    if result.faults:
        assert set(result.faults) == {VICTIM} == set(result.dropped)
    else:  # without masks nobody looks at the keys of exchange 0
        assert step == Step.KEYS and cell in ("plain", "ckks-unmasked")


def decode_header(reply: Envelope) -> Header:
    return reply.signed.authenticate(make("plain").terms.roster)
