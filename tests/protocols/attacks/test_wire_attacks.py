"""Attacks with bytes: messages that are changed on their way, cut short, too long, or that claim to be longer.

The attacker is whoever can reach the wire. Each attack first meets a reader that lacks the
defence, and gains something from it.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from protocols.aggregation import collect
from protocols.aggregation.marks import mark, marked
from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    Envelope,
    Header,
    InputRequest,
    KeysRequest,
    SharesRequest,
    UnmaskRequest,
    membership_digest,
)
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.stage import CohortKeys
from protocols.base import ClientId, Map
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import MalformedMessage
from protocols.ring import Ring, RingVector
from protocols.wire import LARGEST, Message, decode, encode
from tests.protocols.cohort import Cohort, Wire, make, names

VICTIM = "c1"
CELLS = ("plain", "secagg")


def only_the_header(
    self: Envelope, roster: Roster, session: bytes, step: Step, sender: ClientId, map: Map = map
) -> Header:
    """Weak: the signature is checked, and not whether the body is the one that it covers."""
    return self.signed.open(roster, session, step)


def whatever_is_there(self: Ring, data: bytes, length: int) -> RingVector:
    """Weak: a vector is as long as it came; the rest is zero."""
    vector = self.zeros(length)
    vector[: len(data) // self.item_bytes] = np.frombuffer(data, self.dtype)
    return vector


def with_the_victims_input(cell: str, change: Callable[[Cohort, bytes], bytes]) -> tuple[Cohort, Aggregate]:
    """A round in which the wire changes the victim's vector, under the envelope that it signed."""
    cohort = make(cell)

    def tamper(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.INPUT, VICTIM):
            return data
        sent = decode(data, Envelope)
        return encode(Envelope(sent.signed, (change(cohort, sent.parts[0]),)))

    return cohort, cohort.run(Wire(cohort.clients, on_reply=tamper))


def refused(cohort: Cohort, aggregate: Aggregate) -> bool:
    """The victim is a dropout, by name, and the others' sum is right."""
    return cohort.is_right(aggregate) and VICTIM not in aggregate.contributors and set(aggregate.faults) == {VICTIM}


# ---- another body

POISON = 2.5


def add_poison(cohort: Cohort, packed: bytes) -> bytes:
    """Masks hide what is in a vector; they do not stop anybody from adding to it."""
    ring, coder = cohort.terms.layout.ring, cohort.encoding
    assert isinstance(coder, FixedPoint)
    vector = ring.unpack(packed, coder.dimension) + np.uint32(POISON * coder.scale)
    return ring.pack(vector)


@pytest.mark.attack("another body under a signed header")
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_added_to_a_signed_vector_on_its_way_is_noticed(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(Envelope, "open", only_the_header)
        cohort, aggregate = with_the_victims_input(cell, add_poison)
        poisoned = cohort.decoded(aggregate) - cohort.truth(aggregate.contributors)
        assert not aggregate.faults and VICTIM in aggregate.contributors
        assert np.abs(poisoned - POISON).max() < 1e-6  # exactly what the attacker wanted
    assert refused(*with_the_victims_input(cell, add_poison))


# ---- a body cut short


def second_half_lost(cohort: Cohort, packed: bytes) -> bytes:
    return packed[: len(packed) // 2]


def half_wrong(cohort: Cohort, aggregate: Aggregate) -> bool:
    """The sum counts as whole, names nobody, and its second half is wrong."""
    off = np.abs(cohort.decoded(aggregate) - cohort.truth(aggregate.contributors))
    right = bool(off[:3].max() <= 1e-6 < off[3:].min())
    return right and not aggregate.faults and VICTIM in aggregate.contributors


@pytest.mark.attack("a vector cut short")
@pytest.mark.parametrize("cell", CELLS)
def test_a_vector_cut_short_is_no_vector(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(Ring, "unpack", whatever_is_there)
        assert refused(*with_the_victims_input(cell, second_half_lost))  # the hash is enough against this,
        weak.setattr(Envelope, "open", only_the_header)
        assert half_wrong(*with_the_victims_input(cell, second_half_lost))
    with monkeypatch.context() as weak:
        weak.setattr(Envelope, "open", only_the_header)
        assert refused(*with_the_victims_input(cell, second_half_lost))  # and so is the length
    assert refused(*with_the_victims_input(cell, second_half_lost))


def filled_up(data: bytes, expected: type[Message]) -> Message:
    """Weak: reads into a buffer of the announced length, and takes what is there as the message."""
    for missing in range(64):
        with suppress(MalformedMessage):
            return decode(data + bytes(missing), expected)
    raise MalformedMessage("too much is missing")


def with_the_end_lost() -> tuple[Cohort, Aggregate]:
    """A round in which the victim's input arrives without its last 12 bytes: three of six coordinates."""
    cohort = make("secagg")

    def cut(step: Step, name: ClientId, data: bytes) -> bytes:
        return data[:-12] if (step, name) == (Step.INPUT, VICTIM) else data

    return cohort, cohort.run(Wire(cohort.clients, on_reply=cut))


@pytest.mark.attack("a message cut short")
def test_a_message_cut_short_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(collect, "decode", filled_up)
        assert refused(*with_the_end_lost())  # the hash is enough against this,
        weak.setattr(Envelope, "open", only_the_header)
        assert half_wrong(*with_the_end_lost())
    with monkeypatch.context() as weak:
        weak.setattr(Envelope, "open", only_the_header)
        assert refused(*with_the_end_lost())  # and so is the framing
    assert refused(*with_the_end_lost())


# ---- other sharers


def any_sharers(self: CohortKeys, step: Step, sender: ClientId, reply: Envelope) -> Header:
    """Weak: an answer of this session will do, to whatever key list and sharers it was given."""
    return reply.open(self.terms.roster, self.terms.session, step, sender)


def with_a_sharer_less() -> tuple[Cohort, Aggregate]:
    """The wire takes c4 out of what the victim is told of those who shared, and then cuts the victim off."""
    cohort = make("secagg")
    members = names(5)

    def tamper(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.INPUT, VICTIM):
            return data
        asked = decode(data, InputRequest)
        assert marked(members, asked.shared) == members
        return encode(InputRequest(mark(members, members[:-1]), asked.dealt[:-1]))

    wire = Wire(cohort.clients, {VICTIM: int(Step.CONSISTENCY)}, on_request=tamper)
    aggregate = cohort.run(wire)
    answered = wire.reply(Step.INPUT, VICTIM).signed.authenticate(cohort.terms.roster)
    keys = wire.reply(Step.SHARES, VICTIM).signed.authenticate(cohort.terms.roster).keys
    assert answered.keys == membership_digest(keys, mark(members, members[:-1]))
    return cohort, aggregate


@pytest.mark.attack("an input from a client that was shown other sharers")
def test_what_is_masked_for_other_sharers_does_not_enter_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request changed on the wire makes a sum of noise: c4's mask with the victim does not cancel."""
    with monkeypatch.context() as weak:
        weak.setattr(CohortKeys, "open", any_sharers)
        cohort, aggregate = with_a_sharer_less()
        assert not aggregate.faults and VICTIM in aggregate.contributors and not cohort.is_right(aggregate)
    cohort, aggregate = with_a_sharer_less()
    assert dict(aggregate.faults) == {VICTIM: f"{VICTIM} answers to another key list or other sharers"}
    assert dict(aggregate.dropped) == {VICTIM: "exchange 2"}
    assert refused(cohort, aggregate)


# ---- too long

FILLING = 1 << 20


@pytest.mark.attack("a message above the size limit")
def test_a_message_above_the_size_limit_is_refused_before_it_is_read() -> None:
    """A reader without the limit makes a second copy of the gigabyte; a small stand-in shows that it would."""
    announced = encode(KeysRequest(bytes(FILLING)))
    assert peak_memory(lambda: decode(announced, KeysRequest)) >= FILLING
    above = bytes(LARGEST + 1)  # never written to, so the system does not even provide it

    def refuse() -> None:
        with pytest.raises(MalformedMessage, match="limit"):
            decode(above, KeysRequest)

    assert peak_memory(refuse) < FILLING // 16


# ---- longer than it is


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes that Python's allocators held at once meanwhile."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def prefix(message: type[Message], before: bytes) -> bytes:
    return b"SF\x01" + bytes([message.KIND]) + before


# Up to where a field's length is declared: an array of names, of envelopes, of signatures, and bytes.
PLACES = {
    "key list": (SharesRequest, prefix(SharesRequest, b"\x93")),
    "key list entries": (SharesRequest, prefix(SharesRequest, b"\x93\x91\xa1a")),
    "envelopes shown": (SharesRequest, prefix(SharesRequest, b"\x93\x91\xa1a\xc4\x00")),
    "shares dealt": (InputRequest, prefix(InputRequest, b"\x92\xc4\x00")),
    "survivors": (ConsistencyRequest, prefix(ConsistencyRequest, b"\x91")),
    "consents": (UnmaskRequest, prefix(UnmaskRequest, b"\x91")),
    "a consent's header": (UnmaskRequest, prefix(UnmaskRequest, b"\x91\x91\x92")),
    "the sum": (ApplyRequest, prefix(ApplyRequest, b"\x99\xa1a\x01\x01")),
    "the parts of a reply": (Envelope, prefix(Envelope, b"\x92\x92\xc4\x00\xc4\x00")),
    "the whole message": (Envelope, prefix(Envelope, b"")),
}
# MessagePack's longest headers: an array, bytes, a string, a map, an extension.
HEADERS = {"array": b"\xdd", "bytes": b"\xc6", "string": b"\xdb", "map": b"\xdf", "extension": b"\xc9"}


def claim(before: bytes, header: bytes, elements: int) -> bytes:
    """A message of a few bytes whose next field is said to have so many elements."""
    return before + header + elements.to_bytes(4, "big")


def trusting(data: bytes, before: bytes) -> None:
    """Weak: makes room for as many elements as the header says, and then finds that none is there."""
    room = [None] * int.from_bytes(data[len(before) + 1 :], "big")
    raise MalformedMessage(f"the message ends before {len(room)} elements")


@pytest.mark.attack("memory by declared lengths")
@pytest.mark.parametrize("place", PLACES)
def test_a_declared_length_takes_no_memory(place: str) -> None:
    """For what few bytes could make a reader allocate: 2**20 elements are enough to show it, 2**32 - 1 are refused."""
    expected, before = PLACES[place]

    def read(decoder: Callable[[bytes], object], data: bytes) -> int:
        def refuse() -> None:
            with pytest.raises(MalformedMessage):
                decoder(data)

        return peak_memory(refuse)

    small = claim(before, HEADERS["array"], 1 << 20)
    assert len(small) < 32 and read(lambda data: trusting(data, before), small) >= 8 << 20
    for header in HEADERS.values():
        for elements in (1 << 10, 1 << 20, 1 << 24, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
            assert read(lambda data: decode(data, expected), claim(before, header, elements)) < 64 << 10
