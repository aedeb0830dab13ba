"""Attacks of a member on everybody's time and memory: much of what one sends is relayed to all, or hashed at once.

Each first meets a server that lacks the bounds, and gains what they are there for; then each bound by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import msgspec
import pytest

from protocols import merkle
from protocols.aggregation import collect, messages, sharing, summing
from protocols.aggregation.messages import Advertised, Envelope, Header, Signed, envelope
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Step
from protocols.aggregation.sharing import Keys
from protocols.base import ClientId, Map
from protocols.wire import LARGEST, Message, decode, encode
from tests.protocols.cohort import Wire, identity, make

OTHERS = 4
MEMBER = "c1"

# What the member makes of its own honest reply.
Change = Callable[[Envelope], Envelope]


def header_of(reply: Envelope) -> Header:
    return msgspec.msgpack.decode(reply.signed.header, type=Header)


def run(step: Step, change: Change, dimension: int = 6) -> tuple[Wire, Aggregate]:
    """A round of five in which the member says something of its own in one exchange. The sum is right all the same."""
    cohort = make("secagg", dimension=dimension)

    def tamper(at: Step, name: ClientId, data: bytes) -> bytes:
        return encode(change(decode(data, Envelope))) if (at, name) == (step, MEMBER) else data

    wire = Wire(cohort.clients, on_reply=tamper)
    aggregate = cohort.run(wire)
    assert cohort.is_right(aggregate)
    return wire, aggregate


def sent_down(wire: Wire) -> int:
    return sum(map(len, wire.requests.values()))


# ---- the bounds, each as it can be taken away

Weakness = Callable[[pytest.MonkeyPatch], None]


def any_length(weak: pytest.MonkeyPatch) -> None:
    """Reads replies of any length in exchanges 0, 1 and 3."""
    weak.setattr(Keys, "largest", LARGEST)
    weak.setattr(sharing, "SHORT_REPLY", LARGEST)
    weak.setattr(summing, "SHORT_REPLY", LARGEST)


def any_part(weak: pytest.MonkeyPatch) -> None:
    """Relays parts of any length."""
    weak.setattr(sharing, "_LARGEST_PART", LARGEST)


class LooseHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A header whose fields are as long as its sender likes."""

    session: bytes
    step: int
    sender: ClientId
    keys: bytes
    seed: bytes
    body: bytes


def any_header(weak: pytest.MonkeyPatch) -> None:
    """Reads headers with fields of any length, as everybody then does."""
    weak.setattr(messages, "Header", LooseHeader)


class LooseEnvelope(Message, frozen=True):
    """A reply of any number of parts."""

    KIND: ClassVar[int] = Envelope.KIND
    signed: Signed
    parts: tuple[bytes, ...]
    open = Envelope.open


def any_parts(weak: pytest.MonkeyPatch) -> None:
    """Reads replies of any number of parts."""
    weak.setattr(collect, "Envelope", LooseEnvelope)


@contextmanager
def without(*bounds: Weakness) -> Iterator[None]:
    with ExitStack() as stack:
        for bound in bounds:
            bound(stack.enter_context(pytest.MonkeyPatch.context()))
        yield


# ---- what is relayed to all

FILLING = 8 << 20


def long_ledger_head(honest: Envelope) -> Envelope:
    body = msgspec.msgpack.decode(honest.parts[0], type=Advertised)
    longer = msgspec.structs.replace(body, witness=bytes(FILLING))
    return envelope(identity(MEMBER), header_of(honest), [msgspec.msgpack.encode(longer)])


@pytest.mark.attack("one long message relayed to all")
def test_what_one_member_sends_does_not_flood_the_others() -> None:
    with without(any_length, any_part):
        wire, aggregate = run(Step.KEYS, long_ledger_head)
        assert not aggregate.faults and sent_down(wire) >= OTHERS * FILLING
    for bounds in ((any_length,), (any_part,), ()):
        with without(*bounds):
            wire, aggregate = run(Step.KEYS, long_ledger_head)
        assert set(aggregate.faults) == {MEMBER} and sent_down(wire) < FILLING // 16


def long_field(field: str) -> Change:
    """The honest reply under a header of its sender's own, rightly signed, one field of which is very long."""

    def change(honest: Envelope) -> Envelope:
        header = msgspec.structs.replace(header_of(honest), **{field: b"\xa5" * FILLING})
        return envelope(identity(MEMBER), header, honest.parts)

    return change


@pytest.mark.attack("a long field in a header relayed to all")
@pytest.mark.parametrize(
    ("step", "field"),
    [(Step.KEYS, "keys"), (Step.KEYS, "seed"), (Step.SHARES, "seed"), (Step.CONSISTENCY, "seed")],
)
def test_what_one_member_writes_into_a_header_does_not_flood_the_others(step: Step, field: str) -> None:
    """Headers travel on with single parts and with none: in key lists, with dealt shares, as consents."""
    with without(any_length, any_header):
        wire, aggregate = run(step, long_field(field))
        assert not aggregate.faults and sent_down(wire) >= OTHERS * FILLING
    for bounds in ((any_length,), (any_header,), ()):
        with without(*bounds):
            wire, aggregate = run(step, long_field(field))
        assert set(aggregate.faults) == {MEMBER} and dict(aggregate.dropped) == {MEMBER: f"exchange {step:d}"}
        assert not any(b"\xa5" * 64 in data for data in wire.requests.values())  # not a word of it is relayed


# ---- what the server hashes

# So many coordinates make exchange 2 long by right: room for twice as many parts of nothing, of two bytes each.
COORDINATES = 100_000
MOST_PARTS = 1 << 16


def hashed(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many empty parts the server hashes for a member that sends so many, all of them rightly signed."""
    honest_leaf, calls = merkle.leaf, 0

    def counted(part: bytes, map: Map = map) -> bytes:
        nonlocal calls
        calls += not part
        return honest_leaf(part, map)

    def change(honest: Envelope) -> Envelope:
        made = envelope(identity(MEMBER), header_of(honest), [b""] * count)
        counting.setattr(merkle, "leaf", counted)  # from when the member has done its own
        return made

    with monkeypatch.context() as counting:
        _, aggregate = run(Step.INPUT, change, COORDINATES)
    assert set(aggregate.faults) == {MEMBER} and dict(aggregate.dropped) == {MEMBER: "exchange 2"}
    return calls


@pytest.mark.attack("very many parts of nothing")
def test_a_body_of_very_many_parts_is_refused_before_any_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every two bytes are a hash, and one more on the way to the root; the bound on a reply's length allows that."""
    with without(any_parts):
        assert hashed(2 * COORDINATES, monkeypatch) == 2 * COORDINATES
    assert hashed(2 * COORDINATES, monkeypatch) == hashed(MOST_PARTS + 1, monkeypatch) == 0
    assert hashed(MOST_PARTS, monkeypatch) == MOST_PARTS  # the most that a member has the server hash
