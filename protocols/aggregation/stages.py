"""The server's stages of a round, one class an exchange: what a reply must satisfy, and what is asked next.

A stage folds each reply in and keeps only what later stages need: of the inputs, one running sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import urandom
from typing import ClassVar, Protocol

from protocols.aggregation.collect import Exchanged
from protocols.aggregation.messages import (
    Advertised,
    ConsistencyRequest,
    Dealt,
    Envelope,
    InputRequest,
    Opened,
    Relayed,
    SharesRequest,
    Signed,
    UnmaskRequest,
    key_list_digest,
    survivors_statement,
)
from protocols.aggregation.recovery import Recovery
from protocols.aggregation.secrets import commitment
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages
from protocols.encoding import Upload
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.graph import neighbours
from protocols.masking import Work
from protocols.primitives import KEY_BYTES, AgreementKey, equal, hashes
from protocols.ring import RingVector, RunningSum
from protocols.wire import encode

# What one client sends is relayed to all: without a limit, one could make every request of a round too large to read.
# An honest part takes about 170 bytes, a signed ledger head 100.
_LARGEST_PART = 1024


@dataclass(frozen=True)
class Proof:
    """What shows a key holder whose sum it is and who agreed to it: signed headers, no bodies."""

    cohort: tuple[ClientId, ...]
    shared: tuple[ClientId, ...]
    keys: bytes
    inputs: tuple[Signed, ...]
    consents: tuple[Signed, ...]


@dataclass(frozen=True)
class Sum:
    """The end of a round: the ring sum without masks, and whose it is. ``recovered``: dropped after sharing, undone."""

    total: RingVector = field(repr=False)
    uploads: tuple[Upload, ...]
    recovered: tuple[ClientId, ...]
    witnesses: Mapping[ClientId, bytes]
    proof: Proof


class Stage(Exchanged, Protocol):
    """One exchange of a round. ``needed``: fewest accepted replies to go on."""

    step: ClassVar[Step]
    needed: int

    def finish(self) -> tuple[Stage, Messages] | Sum:
        """The next stage and its requests, or the end."""
        ...


@dataclass(frozen=True)
class CohortKeys:
    """The key list U1 as the server relayed it."""

    terms: Terms
    members: dict[ClientId, Advertised]
    keys: bytes
    work: Work

    @property
    def names(self) -> tuple[ClientId, ...]:
        return tuple(self.members)

    @property
    def threshold(self) -> int:
        return self.terms.rules.threshold_for(len(self.members))

    @property
    def least(self) -> int:
        return self.terms.rules.least(len(self.members))

    def open(self, step: Step, sender: ClientId, reply: Envelope) -> tuple[bytes, ...]:
        """The parts of an envelope for this key list; returns the seed first."""
        header = reply.open(self.terms.roster, self.terms.session, step, sender)
        if header.keys != self.keys:
            raise Inconsistent(f"{sender} answers to another key list")
        return (header.seed, *reply.parts)


class Keys:
    """Exchange 0: collect keys, drop what no client could use, relay the rest."""

    step: ClassVar[Step] = Step.KEYS

    def __init__(self, terms: Terms, asked: frozenset[ClientId], work: Work) -> None:
        self.terms = terms
        self._work = work
        self.asked = asked
        self.needed = terms.rules.fewest
        self._replies: dict[ClientId, Envelope] = {}
        self._members: dict[ClientId, Advertised] = {}
        self._probe = AgreementKey.generate(urandom)

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._replies)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        reply.open(self.terms.roster, self.terms.session, self.step, sender)
        member = read(reply.parts, Advertised)
        if len(member.witness) > _LARGEST_PART:
            raise MalformedMessage(f"{sender} sent a ledger head of {len(member.witness)} bytes")
        if self.terms.masked:
            self._check_keys(member)
        self._replies[sender], self._members[sender] = reply, member

    def _check_keys(self, member: Advertised) -> None:
        """Refuse keys of low order and keys that another client sent: no peer would accept the list with them."""
        known = {key for other in self._members.values() for key in (other.mask_key, other.share_key)}
        if member.mask_key == member.share_key or known & {member.mask_key, member.share_key}:
            raise Inconsistent("a public key is used twice")
        self._probe.agree(member.mask_key)
        self._probe.agree(member.share_key)

    def finish(self) -> tuple[Stage, Messages]:
        names = sorted(self._replies)
        cohort = CohortKeys(self.terms, {name: self._members[name] for name in names}, b"", self._work)
        if not self.terms.masked:
            return Inputs(cohort, {}), dict.fromkeys(names, encode(InputRequest(())))
        listed = tuple(self._replies[name] for name in names)
        cohort = replace(cohort, keys=key_list_digest(listed))
        return Shares(cohort), dict.fromkeys(names, encode(SharesRequest(listed)))


class Shares:
    """Exchange 1: collect sealed shares and commitments."""

    step: ClassVar[Step] = Step.SHARES

    def __init__(self, cohort: CohortKeys) -> None:
        self.cohort = cohort
        self.asked = frozenset(cohort.names)
        self.needed = cohort.least
        self._dealt: dict[ClientId, Envelope] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._dealt)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        _, *parts = self.cohort.open(self.step, sender, reply)
        if len(parts) != len(self.cohort.members) or len(parts[0]) != KEY_BYTES:
            raise MalformedMessage(f"{sender} did not deal one part to each peer")
        for part in parts[1:]:
            if len(part) > _LARGEST_PART:
                raise MalformedMessage(f"{sender} dealt a part of {len(part)} bytes")
            read([part], Dealt)
        self._dealt[sender] = reply

    def finish(self) -> tuple[Stage, Messages]:
        requests = {name: encode(InputRequest(self._relayed_to(name))) for name in sorted(self._dealt)}
        return Inputs(self.cohort, self._dealt), requests

    def _relayed_to(self, receiver: ClientId) -> tuple[Relayed, ...]:
        return tuple(
            Relayed(self._dealt[dealer].signed, dealt_part(self.cohort, self._dealt, dealer, receiver))
            for dealer in sorted(self._dealt)
            if dealer != receiver
        )


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


def dealt_part(cohort: CohortKeys, dealt: Mapping[ClientId, Envelope], dealer: ClientId, receiver: ClientId) -> bytes:
    """The part of a dealer's envelope that is for one receiver."""
    return dealt[dealer].parts[1 + neighbours(dealer, cohort.names).index(receiver)]


def _senders(received: Received, consents: tuple[Signed, ...]) -> list[ClientId]:
    terms = received.cohort.terms
    return [consent.open(terms.roster, terms.session, Step.CONSISTENCY).sender for consent in consents]
