"""The attacker's tools, the same for both halves of every attack: a server without rules, and the arithmetic of taking
masks off with whatever secrets it came to know.

Not a test. Updates lie on a coarse grid, so that rounding is exact and a recovered vector can be compared to the bit.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Advertised,
    ConsistencyRequest,
    Envelope,
    Extract,
    Header,
    InputRequest,
    KeysRequest,
    Opened,
    SharePair,
    SharesRequest,
    Signed,
    UnmaskRequest,
    envelope,
    extract,
    key_list_digest,
    key_list_entry,
    membership_digest,
    survivors_statement,
)
from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.states import Advertising, Consenting, Masked, Sharing
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.graph import CohortRules, Graph
from protocols.masking import Mask, apply_masks
from protocols.merkle import tree_of
from protocols.primitives import AgreementKey
from protocols.ring import RingVector
from protocols.wire import Message, decode, encode
from tests.protocols.cohort import Cohort, identity, make, names

VICTIM = "c1"
GRID = 1 / 16
DIMENSION = 6


_entry = cache(key_list_entry)


def grid_updates(count: int, seed: int = 1) -> dict[ClientId, NDArray[np.float64]]:
    """Updates within the bound of 4 whose encoding is certain: multiples of ``GRID``, itself one of the step."""
    generator = np.random.default_rng(seed)
    return {name: generator.integers(-63, 64, DIMENSION) * GRID for name in names(count)}


def cohort_of(
    client: type[AggregationClient],
    count: int = 5,
    *,
    rules: CohortRules | None = None,
    attempt: int = 1,
    inputs: Mapping[ClientId, NDArray[np.float64]] | None = None,
    models: Mapping[ClientId, bytes] | None = None,
    others: Mapping[ClientId, type[AggregationClient]] | None = None,
) -> Cohort:
    """A masked cohort in fixed point, all of one implementation but for ``others``."""
    types = dict.fromkeys(names(count), client) | dict(others or {})
    given = inputs or grid_updates(count)
    return make("secagg", count, DIMENSION, rules=rules, attempt=attempt, inputs=given, models=models, types=types)


def encoded(cohort: Cohort, name: ClientId) -> RingVector:
    """What this client hides: its encoded update, before any mask."""
    weight = cohort.weights[name]
    return cohort.encoding.encode(cohort.inputs[name], weight, cohort.terms.session, name, os.urandom).vector


@dataclass
class Adversary:
    """A server that asks anybody anything and keeps what it hears. ``corrupted``: clients that hide nothing from it.

    ``seeds`` and ``keys``: opened shares of self seeds and of mask keys, by dealer and Shamir point. ``terms`` and
    ``rules`` are those that the attacked clients go by.
    """

    cohort: Cohort
    terms: Terms = None  # type: ignore[assignment]
    rules: CohortRules = None  # type: ignore[assignment]
    corrupted: Collection[ClientId] = ()
    heard: dict[Step, dict[ClientId, Envelope]] = field(default_factory=lambda: {step: {} for step in Step})
    consents: dict[tuple[ClientId, ...], dict[ClientId, Signed]] = field(default_factory=lambda: defaultdict(dict))
    seeds: dict[ClientId, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    keys: dict[ClientId, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    known: dict[ClientId, AgreementKey] = field(default_factory=dict)
    known_share_keys: dict[ClientId, AgreementKey] = field(default_factory=dict)
    dealers: dict[ClientId, tuple[ClientId, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.terms = self.terms or self.cohort.terms
        self.rules = self.rules or self.terms.rules

    def ask(self, name: ClientId, request: Message) -> Envelope:
        """The client's answer; raises what the client raises."""
        client = self.cohort.clients[name]
        reply = decode(client.handle(encode(request)), Envelope)
        self.heard[Step(reply.signed.authenticate(client._terms.roster).step)][name] = reply
        if name in self.corrupted:
            self._seize(name, client)
        return reply

    def _seize(self, name: ClientId, client: AggregationClient) -> None:
        state = client._state
        if isinstance(state, Advertising | Sharing):
            self.known[name], self.known_share_keys[name] = state.mask, state.share
        if isinstance(state, Masked | Consenting):
            for dealer, pair in state.held.items():
                self.keep(name, dealer, pair)

    def keep(self, holder: ClientId, dealer: ClientId, pair: SharePair) -> None:
        """Both shares of one dealer, from a holder that hides nothing."""
        point = self.terms.roster.points[holder]
        self.seeds[dealer][point], self.keys[dealer][point] = pair.seed, pair.key

    # ---- the exchanges, each with the clients and the view of the world that the attack wants

    def advertise_keys(self, asked: Sequence[ClientId] | None = None) -> None:
        for name in asked or tuple(self.cohort.clients):
            self.ask(name, KeysRequest(b""))

    @property
    def members(self) -> tuple[ClientId, ...]:
        return tuple(sorted(self.heard[Step.KEYS]))

    @property
    def entries(self) -> bytes:
        return b"".join(_entry(self.heard[Step.KEYS][name].signed) for name in self.members)

    @property
    def graph(self) -> Graph:
        return self.rules.graph(self.members, key_list_digest(self.members, self.entries))

    def key_list(self, me: ClientId) -> SharesRequest:
        shown = tuple(self.heard[Step.KEYS][near] for near in self.graph.neighbours(me))
        return SharesRequest(self.members, self.entries, shown)

    def share_keys(self, asked: Sequence[ClientId] | None = None) -> None:
        for name in asked or self.members:
            self.ask(name, self.key_list(name))

    def relayed(self, dealer: ClientId, receiver: ClientId) -> Extract:
        dealt = self.heard[Step.SHARES][dealer]
        return extract(dealt, tree_of(dealt.parts), self.graph.place(dealer, receiver))

    def mask_input(self, asked: Sequence[ClientId] | None = None, shared: Collection[ClientId] | None = None) -> None:
        """``shared``: U2 as these clients are told it; everybody who dealt unless given."""
        told = self.heard[Step.SHARES].keys() if shared is None else shared
        for name in asked or tuple(sorted(self.heard[Step.SHARES])):
            near = tuple(dealer for dealer in self.graph.neighbours(name) if dealer in told)
            own = (name,) if name in self.graph.holders(name) else ()
            self.dealers[name] = tuple(sorted((*near, *own)))
            dealt = tuple(self.relayed(dealer, name) for dealer in near)
            self.ask(name, InputRequest(mark(self.members, told), dealt))

    def up_to_inputs(self) -> None:
        """Exchanges 0 to 2 as an honest server holds them."""
        self.advertise_keys()
        self.share_keys()
        self.mask_input()

    def sign(self, survivors: Sequence[ClientId], asked: Sequence[ClientId] | None = None) -> None:
        """Exchange 3: have each of ``asked`` sign these survivors."""
        for name in asked or survivors:
            reply = self.ask(name, ConsistencyRequest(mark(self.members, survivors)))
            self.consents[tuple(survivors)][name] = reply.signed

    def sign_as(self, name: ClientId, survivors: Sequence[ClientId], shared: Collection[ClientId]) -> None:
        """A corrupted client signs whatever the server likes."""
        keys = key_list_digest(self.members, self.entries)
        marks = mark(self.members, shared), mark(self.members, survivors)
        statement = survivors_statement(self.terms.session, keys, self.members, *marks)
        header = Header(self.terms.session, Step.CONSISTENCY, name, membership_digest(keys, marks[0]), b"", b"")
        self.consents[tuple(survivors)][name] = envelope(identity(name), header, [statement]).signed

    def open(
        self,
        survivors: Sequence[ClientId],
        asked: Sequence[ClientId] | None = None,
        proof: Mapping[ClientId, Signed] | None = None,
    ) -> None:
        """Exchange 4: show these survivors' signatures (or ``proof``) and keep the shares that come."""
        signed = self.consents[tuple(survivors)] if proof is None else proof
        for name in asked or survivors:
            shown = tuple(signed[holder] for holder in self.graph.holders(name) if holder in signed)
            shares = read(self.ask(name, UnmaskRequest(shown)).parts, Opened).shares
            for dealer, share in zip(self.dealers[name], shares, strict=True):
                kind = self.seeds if dealer in survivors else self.keys
                kind[dealer][self.terms.roster.points[name]] = share

    # ---- what it all amounts to

    def rebuilt(self, shares: Mapping[int, bytes]) -> bytes | None:
        """The secret, if there are enough shares of it."""
        if len(shares) < self.graph.threshold:
            return None
        few = dict(sorted(shares.items())[: self.graph.threshold])
        return shamir.join(few, shamir.coefficients(few))

    def mask_key(self, name: ClientId) -> AgreementKey | None:
        """This client's mask key, if the attacker knows it or can rebuild it."""
        if name in self.known:
            return self.known[name]
        secret = self.rebuilt(self.keys[name])
        return None if secret is None else AgreementKey(secret)

    def public(self, name: ClientId) -> bytes:
        return read(self.heard[Step.KEYS][name].parts, Advertised).mask_key

    def masks_on(self, name: ClientId, among: Collection[ClientId]) -> list[Mask]:
        """What takes off this client's masks, as far as they are known; those it has with ``among`` cancel."""
        terms = self.cohort.clients[name]._terms
        seed, own = self.rebuilt(self.seeds[name]), self.mask_key(name)
        off = [] if seed is None else [Mask(self_mask_key(terms, name, seed), -1)]
        for peer in self.dealers[name]:
            if peer in among:
                continue
            if own is not None:
                added = pair_mask(terms, own, name, peer, self.public(peer))
                off.append(Mask(added.key, -1 if added.sign > 0 else 1))
            elif (theirs := self.mask_key(peer)) is not None:
                off.append(pair_mask(terms, theirs, peer, name, self.public(name)))
        return off

    def stripped(self, *summed: ClientId) -> RingVector:
        """The sum of these clients' inputs without all the masks that the attacker can take off."""
        layout = self.cohort.encoding.layout
        total = layout.ring.zeros(layout.length)
        for name in summed:
            total += layout.ring.unpack(self.heard[Step.INPUT][name].parts[0], layout.length)
        layout.ring.reduce(total)
        apply_masks(total, layout.ring, [mask for name in summed for mask in self.masks_on(name, summed)])
        return total

    def reads(self, *summed: ClientId) -> bool:
        """Whether that is, to the bit, the sum of what these clients hid. By chance: once in 2**192 tries."""
        hidden = self.cohort.encoding.layout.ring.zeros(DIMENSION)
        for name in summed:
            hidden += encoded(self.cohort, name)
        self.cohort.encoding.layout.ring.reduce(hidden)
        return bool(np.array_equal(self.stripped(*summed), hidden))


def without(client: ClientId, count: int = 5) -> tuple[ClientId, ...]:
    return tuple(name for name in names(count) if name != client)
