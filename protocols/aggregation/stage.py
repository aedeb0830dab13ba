"""What every stage of the server has in common: the key list it works on, how it ends, and what it ends in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from protocols.aggregation.collect import Exchanged
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import Advertised, Dealt, Envelope, Extract, Header, Signed, extract
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages
from protocols.encoding import Upload
from protocols.errors import Inconsistent
from protocols.graph import Graph
from protocols.masking import Work
from protocols.merkle import Tree
from protocols.ring import RingVector


@dataclass(frozen=True)
class Proof:
    """What shows a key holder whose sum it is and who agreed to it: signed headers, no bodies. ``shared`` marks U2."""

    cohort: tuple[ClientId, ...]
    shared: bytes
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
    """The key list U1 as the server relayed it, and the graph that follows from it."""

    terms: Terms
    advertised: Mapping[ClientId, Advertised]
    graph: Graph
    keys: bytes
    members: bytes  # what headers must name: the key list, and from exchange 2 on also who shared
    work: Work

    @property
    def names(self) -> tuple[ClientId, ...]:
        return self.graph.members

    def open(self, step: Step, sender: ClientId, reply: Envelope) -> Header:
        """The header of an envelope for this key list and step."""
        header = reply.open(self.terms.roster, self.terms.session, step, sender, self.work.threads)
        if header.keys != self.members:
            raise Inconsistent(f"{sender} answers to another key list or other sharers")
        return header

    def mark(self, chosen: Collection[ClientId]) -> bytes:
        return mark(self.names, chosen)


@dataclass(frozen=True)
class Dealing:
    """What one client dealt: its signed envelope, and the tree that proves single parts of it."""

    envelope: Envelope = field(repr=False)
    tree: Tree = field(repr=False)

    @property
    def seed_commitment(self) -> bytes:
        return self.envelope.parts[0]

    def extract(self, place: int) -> Extract:
        """The part at ``place``, with its proof."""
        return extract(self.envelope, self.tree, place)

    def dealt(self, place: int) -> Dealt:
        """The part at ``place``, decoded."""
        return read([self.envelope.parts[place]], Dealt)
