"""A cohort in one process: real clients and a real server joined by bytes, over a wire that loses and changes messages.

Not a test: what the protocol tests build their rounds from.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Envelope, Extract, Header, SharesRequest, extract, key_list_entry
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.base import ClientId, Messages, drive
from protocols.encoding import Encoding
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.errors import ProtocolError
from protocols.graph import CohortRules
from protocols.merkle import tree_of
from protocols.primitives import Identity
from protocols.wire import decode, kind

CELLS = ("plain", "secagg", "ckks-unmasked", "ckks")
MASKED = ("secagg", "ckks")
BOUND = 4.0
NEVER = 9

# What happens to one message on its way: the exchange, the client, the bytes; None loses it.
Tamper = Callable[[Step, ClientId, bytes], bytes | None]


def steps_of(cell: str) -> tuple[Step, ...]:
    """The exchanges that a round of this cell consists of, before apply."""
    return (
        (Step.KEYS, Step.SHARES, Step.INPUT, Step.CONSISTENCY, Step.UNMASK)
        if cell in MASKED
        else (Step.KEYS, Step.INPUT)
    )


def names(count: int) -> tuple[ClientId, ...]:
    return tuple(f"c{i}" for i in range(count))


@cache
def identity(name: ClientId) -> Identity:
    """Always the same for one name, so that sessions of several cohorts share a roster."""
    return Identity(hashlib.sha256(f"identity of {name}".encode()).digest())


@cache
def roster(count: int) -> Roster:
    return Roster({name: identity(name).public for name in names(count)})


@cache
def ckks_key() -> CKKSKey:
    return CKKSKey.generate(os.urandom)


@cache
def encoding(cell: str, dimension: int, count: int) -> Encoding:
    if cell in ("plain", "secagg"):
        return FixedPoint(dimension, BOUND, count)
    return CKKS(CKKSParameters(dimension, BOUND, count), ckks_key())


def tolerance(coder: Encoding, count: int) -> float:
    """How far a decoded sum of ``count`` updates may be off."""
    assert isinstance(coder, FixedPoint | CKKS)
    return count * (coder.step if isinstance(coder, FixedPoint) else coder.parameters.step)


def updates(count: int, dimension: int, seed: int = 1) -> dict[ClientId, NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    return {name: generator.uniform(-BOUND, BOUND, dimension) for name in names(count)}


@dataclass
class Cohort:
    """Clients of one session. Each update lies within the bound; weights are 1 unless given."""

    cell: str
    terms: Terms
    encoding: Encoding
    inputs: Mapping[ClientId, NDArray[np.float64]]
    weights: Mapping[ClientId, float]
    clients: dict[ClientId, AggregationClient]
    asked_for_update: list[ClientId]

    def truth(self, contributors: Sequence[ClientId]) -> NDArray[np.float64]:
        """The weighted sum in the clear."""
        return sum((self.weights[name] * self.inputs[name] for name in contributors), np.zeros(self.dimension))

    @property
    def dimension(self) -> int:
        return len(next(iter(self.inputs.values())))

    def server(self) -> AggregationServer:
        return AggregationServer(self.terms, dict.fromkeys(self.clients, b"announcement"))

    def run(self, wire: Wire) -> Aggregate:
        """The round over this wire; raises what the server raises."""
        return drive(self.server(), wire)

    def decoded(self, aggregate: Aggregate) -> NDArray[np.float64]:
        return self.encoding.decode(aggregate.sum.total, aggregate.sum.uploads)

    def is_right(self, aggregate: Aggregate) -> bool:
        """Whether what was decoded is the sum over exactly those whom the aggregate names."""
        off = np.abs(self.decoded(aggregate) - self.truth(aggregate.contributors)).max()
        return bool(off <= tolerance(self.encoding, len(aggregate.contributors)))


def make(
    cell: str,
    count: int = 5,
    dimension: int = 6,
    *,
    attempt: int = 1,
    rules: CohortRules | None = None,
    inputs: Mapping[ClientId, NDArray[np.float64]] | None = None,
    weights: Mapping[ClientId, float] | None = None,
    models: Mapping[ClientId, bytes] | None = None,
    types: Mapping[ClientId, type[AggregationClient]] | None = None,
) -> Cohort:
    """A cohort. ``models`` gives single clients another model tag, ``types`` another (dishonest) implementation.

    Without masks nobody masks with anybody: unless given, the rules there know no sparse graph.
    """
    coder, members = encoding(cell, dimension, count), roster(count)
    demanded = rules or (CohortRules() if cell in MASKED else CohortRules(sparse=None))
    inputs = updates(count, dimension) if inputs is None else inputs
    weights = dict.fromkeys(members.keys, 1.0) if weights is None else weights
    asked: list[ClientId] = []

    @cache
    def terms(model: bytes) -> Terms:
        key_id = ckks_key().key_id if cell.startswith("ckks") else b""
        context = Context("run", 1, attempt, b"plan", members.digest, model, key_id)
        return Terms(context, members, demanded, coder.layout, cell in MASKED)

    def update(name: ClientId) -> Callable[[], NDArray[np.float64]]:
        def ask() -> NDArray[np.float64]:
            asked.append(name)
            return inputs[name]

        return ask

    clients = {
        name: (types or {}).get(name, AggregationClient)(
            name,
            identity(name),
            terms((models or {}).get(name, b"model")),
            coder,
            Contribution(update(name), weights[name], b"ledger head"),
        )
        for name in members.keys
    }
    return Cohort(cell, terms(b"model"), coder, inputs, weights, clients, asked)


@dataclass
class Wire:
    """The transport. ``silent`` maps a client to the exchange from which on it hears nothing.

    Keeps every message as it was sent, each client as it was before each exchange, and what clients refused. Anything
    that a client raises besides ``ProtocolError`` passes through and fails the test.
    """

    clients: Mapping[ClientId, AggregationClient]
    silent: Mapping[ClientId, int] = field(default_factory=dict)
    on_request: Tamper = lambda step, name, data: data
    on_reply: Tamper = lambda step, name, data: data
    requests: dict[tuple[Step, ClientId], bytes] = field(default_factory=dict)
    replies: dict[tuple[Step, ClientId], bytes] = field(default_factory=dict)
    before: dict[tuple[Step, ClientId], AggregationClient] = field(default_factory=dict)
    refusals: dict[ClientId, ProtocolError] = field(default_factory=dict)

    def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        step = Step(kind(next(iter(requests.values()))) - 1)  # the kinds of a round's requests are 1 to 5, in order
        for name, data in requests.items():
            self.requests[step, name] = data
        replies = {name: self._ask(step, name, data) for name, data in requests.items()}
        for name, sent in replies.items():
            if sent is not None:
                self.replies[step, name] = sent
        for name, sent in replies.items():
            arrived = self.on_reply(step, name, sent) if sent is not None else None
            if arrived is not None:
                yield name, arrived

    def client(self, step: Step, name: ClientId = "c1") -> AggregationClient:
        """A client of its own, as that one was before an exchange."""
        return copy.copy(self.before[step, name])

    def reply(self, step: Step, name: ClientId = "c1") -> Envelope:
        """What a client answered in an exchange, before anybody changed it."""
        return decode(self.replies[step, name], Envelope)

    def key_list(self) -> list[Envelope]:
        """Everybody's keys, in order."""
        return [self.reply(Step.KEYS, name) for name in sorted(self.clients)]

    def _ask(self, step: Step, name: ClientId, data: bytes) -> bytes | None:
        arrived = self.on_request(step, name, data)
        if arrived is None or self.silent.get(name, NEVER) <= step:
            return None
        # A client's states are frozen, so a shallow copy is the client at this moment.
        self.before[step, name] = copy.copy(self.clients[name])
        try:
            return self.clients[name].handle(arrived)
        except ProtocolError as error:
            self.refusals[name] = error
            return None


def shares_request(listed: Sequence[Envelope], me: ClientId) -> SharesRequest:
    """What a server that took these keys, in this order, would ask ``me`` in exchange 1, on the complete graph."""
    members = tuple(claimed(each) for each in listed)
    entries = b"".join(key_list_entry(each.signed) for each in listed)
    return SharesRequest(members, entries, tuple(each for each in listed if claimed(each) != me))


def claimed(reply: Envelope) -> ClientId:
    """Whose reply it says it is."""
    return msgspec.msgpack.decode(reply.signed.header, type=Header).sender


def taken_out(dealt: Envelope, place: int) -> Extract:
    """One part of an envelope, with its proof."""
    return extract(dealt, tree_of(dealt.parts), place)


def clean_run(cohort: Cohort) -> Wire:
    """A whole round without incident, for what it leaves on the wire."""
    wire = Wire(cohort.clients)
    cohort.run(wire)
    return wire
