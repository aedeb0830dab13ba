"""The server's first two stages: collect keys and shares, and relay them.

A stage takes each reply in as it comes and keeps only what later stages need.
"""

from __future__ import annotations

from dataclasses import replace
from os import urandom
from typing import ClassVar

from protocols.aggregation.messages import (
    Advertised,
    Dealt,
    Envelope,
    InputRequest,
    Relayed,
    SharesRequest,
    key_list_digest,
)
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.stage import CohortKeys, Stage, dealt_part
from protocols.aggregation.summing import Inputs
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages
from protocols.errors import Inconsistent, MalformedMessage
from protocols.masking import Work
from protocols.primitives import KEY_BYTES, AgreementKey
from protocols.wire import encode

# What one client sends is relayed to all: without a limit, one could make every request of a round too large to read.
# An honest part takes about 170 bytes, a signed ledger head 100.
_LARGEST_PART = 1024


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
