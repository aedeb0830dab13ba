"""The server's stages from the inputs on: add them up as they arrive, have survivors agree, take the masks off.

Of the inputs it holds one running sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from protocols.aggregation.messages import (
    ConsistencyRequest,
    Dealt,
    Envelope,
    Opened,
    Signed,
    UnmaskRequest,
    survivors_statement,
)
from protocols.aggregation.recovery import Recovery
from protocols.aggregation.secrets import commitment
from protocols.aggregation.session import Step
from protocols.aggregation.stage import CohortKeys, Proof, Stage, Sum, dealt_part
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages
from protocols.encoding import Upload
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.primitives import equal, hashes
from protocols.ring import RunningSum
from protocols.wire import encode


class Inputs:
    """Exchange 2: add up the vectors as they arrive and drop them."""

    step: ClassVar[Step] = Step.INPUT

    def __init__(self, cohort: CohortKeys, dealt: dict[ClientId, Envelope]) -> None:
        self.cohort = cohort
        self.asked = frozenset(dealt or cohort.names)
        self.needed = cohort.least
        self._dealt = dealt
        self._layout = cohort.terms.layout
        self._sum = RunningSum(self._layout.ring, self._layout.length)
        self._inputs: dict[ClientId, Signed] = {}
        self._seeds: dict[ClientId, bytes] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._inputs)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        seed, *parts = self.cohort.open(self.step, sender, reply)
        if len(parts) != 1 or len(seed) != self._layout.seed_bytes:
            raise MalformedMessage(f"{sender} sent {len(parts)} vectors and a seed of {len(seed)} bytes")
        if seed and seed in self._seeds.values():
            raise Inconsistent(f"{sender} repeats another client's seed")
        self._sum.add(self._layout.ring.unpack(parts[0], self._layout.length))
        self._inputs[sender], self._seeds[sender] = reply.signed, seed

    def finish(self) -> tuple[Stage, Messages] | Sum:
        survivors = tuple(sorted(self._inputs))
        received = Received(self.cohort, self._dealt, survivors, self._inputs, self._seeds, self._sum)
        if not self.cohort.terms.masked:
            return received.summed(())
        return Consistency(received), dict.fromkeys(survivors, encode(ConsistencyRequest(survivors)))


@dataclass(frozen=True)
class Received:
    """What the server holds once the survivor set U3 is fixed."""

    cohort: CohortKeys
    dealt: dict[ClientId, Envelope] = field(repr=False)
    survivors: tuple[ClientId, ...]
    inputs: dict[ClientId, Signed] = field(repr=False)
    seeds: dict[ClientId, bytes] = field(repr=False)
    sum: RunningSum = field(repr=False)

    @property
    def shared(self) -> tuple[ClientId, ...]:
        return tuple(sorted(self.dealt))

    def summed(self, consents: tuple[Signed, ...]) -> Sum:
        terms = self.cohort.terms
        inputs = tuple(self.inputs[name] for name in self.survivors)
        proof = Proof(self.cohort.names, self.shared, self.cohort.keys, inputs, consents)
        uploads = tuple(Upload(terms.session, name, self.seeds[name]) for name in self.survivors)
        recovered = tuple(name for name in self.shared if name not in self.inputs)
        witnesses = {name: member.witness for name, member in self.cohort.members.items()}
        return Sum(self.sum.finish(), uploads, recovered, witnesses, proof)


class Consistency:
    """Exchange 3: collect signatures over the survivor set."""

    step: ClassVar[Step] = Step.CONSISTENCY

    def __init__(self, received: Received) -> None:
        self._received = received
        self.asked = frozenset(received.survivors)
        self.needed = received.cohort.threshold
        cohort = received.cohort
        self._statement = survivors_statement(
            cohort.terms.session, cohort.keys, cohort.names, received.shared, received.survivors
        )
        self._consents: dict[ClientId, Signed] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._consents)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        _, *parts = self._received.cohort.open(self.step, sender, reply)
        if hashes(parts) != hashes([self._statement]):
            raise Inconsistent(f"{sender} signed another survivor set")
        self._consents[sender] = reply.signed

    def finish(self) -> tuple[Stage, Messages]:
        consents = tuple(self._consents[name] for name in sorted(self._consents))
        return Unmask(self._received, consents), dict.fromkeys(sorted(self._consents), encode(UnmaskRequest(consents)))


class Unmask:
    """Exchange 4: collect shares, each checked against its dealer's commitment, and take the masks off."""

    step: ClassVar[Step] = Step.UNMASK

    def __init__(self, received: Received, consents: tuple[Signed, ...]) -> None:
        self._received = received
        self._consents = consents
        self.asked = frozenset(_senders(received, consents))
        self.needed = received.cohort.threshold
        self._shares: dict[ClientId, dict[ClientId, bytes]] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._shares)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        _, *parts = self._received.cohort.open(self.step, sender, reply)
        opened = read(parts, Opened).shares
        if [peer for peer, _ in opened] != list(self._received.shared):
            raise MalformedMessage(f"{sender} did not open one share of each peer")
        for dealer, share in opened:
            self._check(sender, dealer, share)
        self._shares[sender] = dict(opened)

    def _check(self, holder: ClientId, dealer: ClientId, share: bytes) -> None:
        if holder == dealer:  # nobody commits to a share kept for itself; the rebuilt secret is checked instead
            return
        dealt = read([dealt_part(self._received.cohort, self._received.dealt, dealer, holder)], Dealt)
        expected = dealt.seed_commitment if dealer in self._received.survivors else dealt.key_commitment
        if not equal(commitment(share), expected):
            raise Forged(f"{holder} opened a share of {dealer} that is not the one dealt")

    def finish(self) -> Sum:
        received = self._received
        seed_commitments = {name: received.dealt[name].parts[0] for name in received.survivors}
        cohort = received.cohort
        recovery = Recovery(cohort.terms, cohort.members, seed_commitments, received.shared, cohort.work)
        recovery.remove(received.sum.finish(), self._shares, received.cohort.threshold)
        return received.summed(self._consents)


def _senders(received: Received, consents: tuple[Signed, ...]) -> list[ClientId]:
    terms = received.cohort.terms
    return [consent.open(terms.roster, terms.session, Step.CONSISTENCY).sender for consent in consents]
