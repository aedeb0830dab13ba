"""The server's first two stages: collect keys and shares, and relay them.

A stage takes each reply in as it comes and keeps only what later stages need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from protocols.aggregation.messages import (
    SHORT_REPLY,
    Advertised,
    Dealt,
    Envelope,
    InputRequest,
    SharesRequest,
    key_list_digest,
    key_list_entry,
    membership_digest,
)
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.stage import CohortKeys, Dealing, Stage
from protocols.aggregation.summing import Inputs
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Requests
from protocols.errors import ConfigurationError, Inconsistent, MalformedMessage
from protocols.masking import Work
from protocols.merkle import tree_of
from protocols.primitives import KEY_BYTES, AgreementKey
from protocols.wire import encode

# What one client sends is relayed to all: without a limit, one could make every request of a round too large to read.
# An honest part takes about 160 bytes, a signed ledger head 100.
_LARGEST_PART = 1024
Admit = Callable[[ClientId, bytes], None]
"""Called with a client and what it showed (its ledger's head); raises ``ProtocolError`` to leave it out."""


def admit_all(client: ClientId, witness: bytes) -> None:
    """Leave nobody out."""


# With a key of low order every key agrees on nothing, so that one which hides nothing is enough to find out.
_PROBE = AgreementKey(bytes(KEY_BYTES))


class Keys:
    """Exchange 0: collect keys, drop what no client could use, relay the rest."""

    step: ClassVar[Step] = Step.KEYS
    largest: ClassVar[int] = SHORT_REPLY

    def __init__(self, terms: Terms, asked: frozenset[ClientId], work: Work, admit: Admit = admit_all) -> None:
        terms.check_cohort(len(asked))
        self.terms = terms
        self._work = work
        self._admit = admit
        self.asked = asked
        self.needed = terms.rules.fewest
        self._replies: dict[ClientId, Envelope] = {}
        self._members: dict[ClientId, Advertised] = {}
        self._known: set[bytes] = set()

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._replies)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        reply.open(self.terms.roster, self.terms.session, self.step, sender)
        member = read(reply.parts, Advertised)
        if len(member.witness) > _LARGEST_PART:
            raise MalformedMessage(f"{sender} sent a ledger head of {len(member.witness)} bytes")
        self._admit(sender, member.witness)
        if self.terms.masked:
            self._check_keys(member)
        self._replies[sender], self._members[sender] = reply, member

    def _check_keys(self, member: Advertised) -> None:
        """Refuse keys of low order and keys that another client sent: no peer would accept the list with them."""
        keys = {member.mask_key, member.share_key}
        if len(keys) != 2 or self._known & keys:
            raise Inconsistent("a public key is used twice")
        _PROBE.agree(member.mask_key)
        _PROBE.agree(member.share_key)
        self._known |= keys

    def finish(self) -> tuple[Stage, Messages]:
        names = tuple(sorted(self._replies))
        listed = {name: self._replies[name].signed for name in names}
        entries = b"".join(key_list_entry(signed) for signed in listed.values()) if self.terms.masked else b""
        keys = key_list_digest(names, entries) if self.terms.masked else b""
        try:
            graph = self.terms.graph(names, keys)
        except ConfigurationError as error:  # what the rules allow of the whole roster, they need not of those who came
            raise Inconsistent(f"{len(names)} clients are no cohort that the rules allow: {error}") from error
        cohort = CohortKeys(self.terms, self._members, graph, keys, keys, self._work)
        if not self.terms.masked:
            return Inputs(cohort, {}), dict.fromkeys(names, encode(InputRequest(b"", ())))

        def request(name: ClientId) -> bytes:
            shown = tuple(self._replies[near] for near in graph.neighbours(name))
            return encode(SharesRequest(names, entries, shown))

        return Shares(cohort), Requests(names, request)


class Shares:
    """Exchange 1: collect sealed shares and commitments."""

    step: ClassVar[Step] = Step.SHARES

    def __init__(self, cohort: CohortKeys) -> None:
        self.cohort = cohort
        self.asked = frozenset(cohort.names)
        self.needed = cohort.graph.least
        self.largest = SHORT_REPLY + cohort.graph.degree * (_LARGEST_PART + 8)
        self._dealt: dict[ClientId, Dealing] = {}

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._dealt)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        self.cohort.open(self.step, sender, reply)
        parts = reply.parts
        if len(parts) != 1 + self.cohort.graph.degree or len(parts[0]) != KEY_BYTES:
            raise MalformedMessage(f"{sender} did not deal one part to each neighbour")
        for part in parts[1:]:
            if len(part) > _LARGEST_PART:
                raise MalformedMessage(f"{sender} dealt a part of {len(part)} bytes")
            read([part], Dealt)
        self._dealt[sender] = Dealing(reply, tree_of(parts))

    def finish(self) -> tuple[Stage, Messages]:
        graph, shared = self.cohort.graph, self.cohort.mark(self._dealt)
        cohort = replace(self.cohort, members=membership_digest(self.cohort.keys, shared))

        def request(name: ClientId) -> bytes:
            dealers = (near for near in graph.neighbours(name) if near in self._dealt)
            relayed = tuple(self._dealt[dealer].extract(graph.place(dealer, name)) for dealer in dealers)
            return encode(InputRequest(shared, relayed))

        return Inputs(cohort, self._dealt), Requests(sorted(self._dealt), request)
