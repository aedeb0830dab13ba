"""The server's stages from the inputs on: add them up as they arrive, have survivors agree, take the masks off.

Of the inputs it holds one running sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

from protocols.aggregation.messages import (
    SHORT_REPLY,
    Complaint,
    ConsistencyRequest,
    Envelope,
    Opened,
    Signed,
    UnmaskRequest,
    survivors_statement,
)
from protocols.aggregation.recovery import Recovery
from protocols.aggregation.secrets import commitment
from protocols.aggregation.session import LONGEST_NAME, Step
from protocols.aggregation.stage import CohortKeys, Dealing, Proof, Stage, Sum
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Requests
from protocols.encoding import Upload
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.graph import Graph
from protocols.merkle import tree_of
from protocols.primitives import equal
from protocols.ring import RunningSum
from protocols.wire import encode


class Inputs:
    """Exchange 2: add up the vectors as they arrive and drop them."""

    step: ClassVar[Step] = Step.INPUT

    def __init__(self, cohort: CohortKeys, dealt: dict[ClientId, Dealing]) -> None:
        self.cohort = cohort
        self.asked = frozenset(dealt or cohort.names)
        self.needed = cohort.graph.least
        self._dealt = dealt
        self._layout = cohort.terms.layout
        self._sum = RunningSum(self._layout.ring, self._layout.length)
        self._inputs: dict[ClientId, Signed] = {}
        self._seeds: dict[ClientId, bytes] = {}
        # A vector, or a complaint with the names of all neighbours, of up to four bytes a character.
        names = (4 * LONGEST_NAME + 10) * cohort.graph.degree
        self.largest = SHORT_REPLY + self._layout.length * self._layout.ring.item_bytes + names
        self.disputes: dict[ClientId, set[ClientId]] = {}
        self._complainers: set[ClientId] = set()

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._inputs)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        if sender in self._complainers:
            raise Inconsistent(f"{sender} complained in place of an input")
        if reply.signed.says(Step.COMPLAINT):
            raise self._complaint(sender, reply)
        seed, parts = self.cohort.open(self.step, sender, reply).seed, reply.parts
        if len(parts) != 1 or len(seed) != self._layout.seed_bytes:
            raise MalformedMessage(f"{sender} sent {len(parts)} vectors and a seed of {len(seed)} bytes")
        if seed and seed in self._seeds.values():
            raise Inconsistent(f"{sender} repeats another client's seed")
        self._sum.add(self._layout.ring.unpack(parts[0], self._layout.length))
        self._inputs[sender], self._seeds[sender] = reply.signed, seed

    def _complaint(self, sender: ClientId, reply: Envelope) -> Inconsistent:
        """Take down whose shares ``sender`` says do not open; a dropout itself."""
        self.cohort.open(Step.COMPLAINT, sender, reply)
        dealers = read(reply.parts, Complaint).dealers
        if not dealers or not set(dealers) <= set(self.cohort.graph.neighbours(sender)).intersection(self._dealt):
            raise Inconsistent(f"{sender} complains about shares that it was not dealt")
        self._complainers.add(sender)
        for dealer in dealers:
            self.disputes.setdefault(dealer, set()).add(sender)
        return Inconsistent(f"cannot open the shares of {', '.join(dealers)[:80]}")

    @property
    def blamed(self) -> Mapping[ClientId, str]:
        """Dealers about whom more of their holders complain than may be missing.

        With that many or fewer, the sum can do without those who complain, and one of two may be lying; so many liars
        are more than an honest dealer's threshold is made for.
        """
        return {
            dealer: f"its shares do not open, say {len(holders)} of those who were dealt them"
            for dealer, holders in self.disputes.items()
            if len(holders) > self.cohort.graph.tolerated
        }

    def finish(self) -> tuple[Stage, Messages] | Sum:
        survivors = tuple(sorted(self._inputs))
        received = Received(self.cohort, self._dealt, survivors, self._inputs, self._seeds, self._sum)
        if not self.cohort.terms.masked:
            return received.summed(())
        request = encode(ConsistencyRequest(self.cohort.mark(survivors)))
        return Consistency(received), dict.fromkeys(survivors, request)


@dataclass(frozen=True)
class Received:
    """What the server holds once the survivor set U3 is fixed."""

    cohort: CohortKeys
    dealt: dict[ClientId, Dealing] = field(repr=False)
    survivors: tuple[ClientId, ...]
    inputs: dict[ClientId, Signed] = field(repr=False)
    seeds: dict[ClientId, bytes] = field(repr=False)
    sum: RunningSum = field(repr=False)

    @property
    def statement(self) -> bytes:
        """What survivors are asked to sign."""
        cohort, shared = self.cohort, self.cohort.mark(self.dealt)
        return survivors_statement(cohort.terms.session, cohort.keys, cohort.names, shared, cohort.mark(self.survivors))

    def summed(self, consents: tuple[Signed, ...]) -> Sum:
        terms, cohort = self.cohort.terms, self.cohort
        inputs = tuple(self.inputs[name] for name in self.survivors)
        proof = Proof(cohort.names, cohort.mark(self.dealt), cohort.keys, inputs, consents)
        uploads = tuple(Upload(terms.session, name, self.seeds[name]) for name in self.survivors)
        recovered = tuple(name for name in sorted(self.dealt) if name not in self.inputs)
        witnesses = {name: cohort.advertised[name].witness for name in cohort.names}
        return Sum(self.sum.finish(), uploads, recovered, witnesses, proof)


class Consistency:
    """Exchange 3: collect signatures over the survivor set."""

    step: ClassVar[Step] = Step.CONSISTENCY

    def __init__(self, received: Received) -> None:
        self._received = received
        self.asked = frozenset(received.survivors)
        self.needed = received.cohort.graph.quorum
        self.largest = SHORT_REPLY
        self._body = tree_of([received.statement]).root
        self._consents: dict[ClientId, Signed] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._consents)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        if not equal(self._received.cohort.open(self.step, sender, reply).body, self._body):
            raise Inconsistent(f"{sender} signed another survivor set")
        self._consents[sender] = reply.signed

    def finish(self) -> tuple[Stage, Messages]:
        graph, consents = self._received.cohort.graph, dict(sorted(self._consents.items()))

        def request(name: ClientId) -> bytes:
            near = (consents[holder] for holder in graph.holders(name) if holder in consents)
            return encode(UnmaskRequest(tuple(islice(near, graph.threshold))))

        asked = list(consents)
        # On the complete graph all are shown the same.
        shown = dict.fromkeys(asked, request(asked[0])) if graph.complete else Requests(asked, request)
        return Unmask(self._received, tuple(consents.values()), frozenset(asked)), shown


class Unmask:
    """Exchange 4: collect shares, each checked against its dealer's commitment, and take the masks off.

    Of each dealer's secret it keeps as many shares as open it.
    """

    step: ClassVar[Step] = Step.UNMASK

    def __init__(self, received: Received, consents: tuple[Signed, ...], asked: frozenset[ClientId]) -> None:
        self._received = received
        self._consents = consents
        self.asked = asked
        self.needed = received.cohort.graph.quorum
        self.largest = SHORT_REPLY + 40 * (1 + received.cohort.graph.degree)
        self._survivors = frozenset(received.survivors)
        self._answered: set[ClientId] = set()
        self._shares: dict[ClientId, dict[ClientId, bytes]] = {name: {} for name in sorted(received.dealt)}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._answered)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        cohort, dealt = self._received.cohort, self._received.dealt
        cohort.open(self.step, sender, reply)
        opened = read(reply.parts, Opened).shares
        dealers = [name for name in _dealers_to(cohort.graph, sender) if name in dealt]
        if len(opened) != len(dealers):
            raise MalformedMessage(f"{sender} did not open one share of each dealer")
        for dealer, share in zip(dealers, opened, strict=True):
            self._check(sender, dealer, share)
        self._answered.add(sender)
        for dealer, share in zip(dealers, opened, strict=True):
            if len(self._shares[dealer]) < cohort.graph.threshold:
                self._shares[dealer][sender] = share

    def _check(self, holder: ClientId, dealer: ClientId, share: bytes) -> None:
        if holder == dealer:  # nobody commits to a share kept for itself; the rebuilt secret is checked instead
            return
        dealt = self._received.dealt[dealer].dealt(self._received.cohort.graph.place(dealer, holder))
        expected = dealt.seed_commitment if dealer in self._survivors else dealt.key_commitment
        if not equal(commitment(share), expected):
            raise Forged(f"{holder} opened a share of {dealer} that is not the one dealt")

    def finish(self) -> Sum:
        received, cohort = self._received, self._received.cohort
        seed_commitments = {name: received.dealt[name].seed_commitment for name in received.survivors}
        recovery = Recovery(cohort.terms, cohort.graph, cohort.advertised, seed_commitments, cohort.work)
        recovery.remove(received.sum.finish(), self._shares)
        return received.summed(self._consents)


def _dealers_to(graph: Graph, holder: ClientId) -> list[ClientId]:
    """Whose shares a client holds, sorted: of its neighbours, and of itself where it is its own holder."""
    own = [holder] if holder in graph.holders(holder) else []
    return sorted([*graph.neighbours(holder), *own])
