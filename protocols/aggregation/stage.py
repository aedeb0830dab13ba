"""What every stage of the server has in common: the key list it works on, how it ends, and what it ends in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from protocols.aggregation.collect import Exchanged
from protocols.aggregation.messages import Advertised, Envelope, Signed
from protocols.aggregation.session import Step, Terms
from protocols.base import ClientId, Messages
from protocols.encoding import Upload
from protocols.errors import Inconsistent
from protocols.graph import neighbours
from protocols.masking import Work
from protocols.ring import RingVector


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


def dealt_part(cohort: CohortKeys, dealt: Mapping[ClientId, Envelope], dealer: ClientId, receiver: ClientId) -> bytes:
    """The part of a dealer's envelope that is for one receiver."""
    return dealt[dealer].parts[1 + neighbours(dealer, cohort.names).index(receiver)]
