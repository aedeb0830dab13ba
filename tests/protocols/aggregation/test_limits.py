"""How long a reply may be: what is longer is its sender's fault unread, and no honest one is."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.disputes import suspects
from protocols.aggregation.messages import Envelope, Header, InputRequest, SharePair, Signed
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import LONGEST_NAME, Context, Roster, Step, Terms
from protocols.aggregation.stage import Stage
from protocols.aggregation.states import Contribution, Sharing
from protocols.base import ClientId, drive
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import MalformedMessage, RoundAborted
from protocols.graph import CohortRules
from protocols.wire import decode, encode
from tests.protocols.cohort import CELLS, Tamper, Wire, identity, make, steps_of

VICTIM = "c2"


def stretched(server: AggregationServer, at: Step, above: int, filling: bytes) -> Tamper:
    """The victim's reply of one exchange, filled up to so many bytes more than are honest."""

    def tamper(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (at, VICTIM):
            return data
        return data + filling * (server._stage.largest + above - len(data))

    return tamper


@pytest.mark.parametrize("filling", [b"\x00", b"\xff"])
@pytest.mark.parametrize(("cell", "step"), [(cell, step) for cell in CELLS for step in steps_of(cell)])
def test_a_reply_longer_than_any_honest_one_is_its_senders_fault_and_is_not_decoded(
    cell: str, step: Step, filling: bytes
) -> None:
    """One byte decides: up to there, what stands behind the message makes it malformed."""
    for above, fault in ((0, "the bytes are not a Envelope"), (1, "bytes, at most")):
        cohort = make(cell)
        server = cohort.server()
        aggregate = drive(server, Wire(cohort.clients, on_reply=stretched(server, step, above, filling)))
        assert set(aggregate.faults) == {VICTIM} and fault in aggregate.faults[VICTIM]
        assert dict(aggregate.dropped) == {VICTIM: f"exchange {step:d}"} and cohort.is_right(aggregate)


# ---- the longest honest replies

COUNT = 12


def long_name(letter: str, number: int) -> ClientId:
    return f"{number:02}" + letter * (LONGEST_NAME - 2)


class Accuses(AggregationClient):
    """Complains about all neighbours, as one must whose relayed shares were all signed and none of which opens."""

    def _receive_all(self, state: Sharing, request: InputRequest) -> tuple[dict[ClientId, SharePair], list[ClientId]]:
        return {}, list(state.cohort.graph.neighbours(self._name))


class Listening(Wire):
    """Keeps how long each reply was, and how long it might have been."""

    def __init__(self, clients: Mapping[ClientId, AggregationClient], server: AggregationServer) -> None:
        super().__init__(clients, on_reply=self._measure)
        self.server, self.lengths = server, dict[tuple[Step, ClientId], tuple[int, int]]()

    def _measure(self, step: Step, name: ClientId, data: bytes) -> bytes:
        stage: Stage = self.server._stage
        self.lengths[step, name] = len(data), stage.largest
        return data


def longest(letter: str, witness: int, complains: bool) -> tuple[Aggregate, Listening]:
    """A round of a vector of one coordinate, so that nothing but names is long, with the longest names."""
    everyone = [long_name(letter, number) for number in range(COUNT)]
    members = Roster({name: identity(name).public for name in everyone})
    coder = FixedPoint(1, 4.0, COUNT)
    context = Context("run", 1, 1, b"plan", members.digest, b"model")
    terms = Terms(context, members, CohortRules(), coder.layout, True)
    given = Contribution(lambda: np.ones(1), 1.0, os.urandom(witness))
    clients: dict[ClientId, AggregationClient] = {}
    for name in everyone:
        kind = Accuses if complains and name == everyone[0] else AggregationClient
        clients[name] = kind(name, identity(name), terms, coder, given)
    server = AggregationServer(terms, dict.fromkeys(clients, b""))
    wire = Listening(clients, server)
    return drive(server, wire), wire


@pytest.mark.parametrize("letter", ["n", "名", "😀"])
def test_replies_with_the_longest_names_and_ledger_heads_are_accepted(letter: str) -> None:
    aggregate, wire = longest(letter, 1024, False)
    assert not aggregate.faults and not aggregate.dropped and len(aggregate.contributors) == COUNT
    assert {step for step, _ in wire.lengths} == set(steps_of("secagg"))
    assert all(length <= most for length, most in wire.lengths.values())


def test_a_longer_ledger_head_is_a_fault() -> None:
    with pytest.raises(RoundAborted, match="0 clients are left after exchange 0") as aborted:
        longest("n", 1025, False)
    assert all("a ledger head of 1025 bytes" in why for why in aborted.value.faults.values())


@pytest.mark.parametrize("letter", ["n", "名", "😀"])
def test_a_complaint_about_all_neighbours_is_heard(letter: str) -> None:
    aggregate, wire = longest(letter, 0, True)
    complainer = long_name(letter, 0)
    length, most = wire.lengths[Step.INPUT, complainer]
    assert length > (COUNT - 1) * LONGEST_NAME and aggregate.faults[complainer].startswith("cannot open the shares of")
    assert length <= most and set(aggregate.faults) == set(wire.clients)
    assert suspects(aggregate.disputes) == {complainer}


# ---- headers

FIELDS = {"session": bytes(32), "keys": bytes(32), "seed": bytes(32), "body": bytes(32), "sender": "x" * LONGEST_NAME}


@pytest.mark.parametrize("field", FIELDS)
def test_the_fields_of_a_header_have_a_greatest_length(field: str) -> None:
    full = Header(bytes(32), int(Step.KEYS), "c1", bytes(32), bytes(32), bytes(32))
    longest = msgspec.structs.replace(full, **{field: FIELDS[field]})
    longer = msgspec.structs.replace(full, **{field: FIELDS[field] + FIELDS[field][:1]})
    assert Signed(msgspec.msgpack.encode(longest), b"").says(Step.KEYS)
    with pytest.raises(MalformedMessage, match="header"):
        Signed(msgspec.msgpack.encode(longer), b"").says(Step.KEYS)


# ---- parts

MOST_PARTS = 1 << 16


@pytest.mark.parametrize(("parts", "taken"), [(MOST_PARTS, True), (MOST_PARTS + 1, False)])
def test_an_envelope_has_a_greatest_number_of_parts(parts: int, taken: bool) -> None:
    data = encode(Envelope(Signed(b"", b""), (b"",) * parts))
    if taken:
        assert len(decode(data, Envelope).parts) == parts
    else:
        with pytest.raises(MalformedMessage, match="length <= 65536"):
            decode(data, Envelope)
