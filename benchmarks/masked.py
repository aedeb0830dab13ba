"""The two works of secure aggregation that a peer does too: a client masks, the server unmasks.

Each is its own description: sent to the peer as it is, and run by us with ``seconds``.
"""

from __future__ import annotations

import copy
import os
import time
import zlib
from functools import cache
from typing import ClassVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.cohort import Session
from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step, Terms
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import AgreementKey
from securefl.keystream import fastest


class ClientMask(Struct, frozen=True, tag=True):
    """One client masks an integer vector against ``peers`` others: agree on a key with each, derive, expand, add.

    Rounding to integers is on neither side's clock: it is no part of masking, and a constant on both sides of a ratio
    would only pull it towards one.
    """

    GOAL: ClassVar[float] = 8.0

    dimension: int
    peers: int

    def __str__(self) -> str:
        return f"client_mask_d{_short(self.dimension)}_k{self.peers}_vs_flower"

    @property
    def checksum(self) -> int:
        """CRC-32 of what the peer must find below its masks."""
        return zlib.crc32(quantized(self.dimension).tobytes())

    def seconds(self) -> float:
        """Our time; the masks must come off again."""
        terms = _terms(Session(self.peers + 1, self.dimension))
        ring, work, (me, *peers) = terms.layout.ring, Work(fastest()), sorted(terms.roster.keys)
        own, seed, public = AgreementKey.generate(os.urandom), os.urandom(32), _public_keys(self.peers)
        plain = quantized(self.dimension)
        vector = plain.copy()
        started = time.perf_counter()
        masks = [Mask(self_mask_key(terms, me, seed), 1)]
        masks += [pair_mask(terms, own, me, peer, key) for peer, key in zip(peers, public, strict=True)]
        apply_masks(vector, ring, masks, work)
        seconds = time.perf_counter() - started
        hidden = not np.array_equal(vector, plain)
        apply_masks(vector, ring, [Mask(mask.key, -1 if mask.sign > 0 else 1) for mask in masks], work)
        if not hidden or not np.array_equal(vector, plain):
            raise AssertionError("our masks hide nothing or do not come off: their time means nothing")
        return seconds


class ServerUnmask(Struct, frozen=True, tag=True):
    """The server has the last replies of a complete graph and takes the masks off: Shamir, key agreement, masks.

    Ours is the server's whole last exchange: it also decodes the replies and checks signatures and commitments.
    Flower's begins with decoded shares and has nothing to check.
    """

    GOAL: ClassVar[float] = 100.0

    clients: int
    dimension: int
    dropped: int
    threshold: int

    def __str__(self) -> str:
        return f"server_unmask_n{self.clients}_d{_short(self.dimension)}_drop{self.dropped}_vs_flower"

    @classmethod
    def of(cls, clients: int, dimension: int, dropped: int) -> ServerUnmask:
        """With our own threshold, on both sides."""
        rules = _terms(Session(clients, dimension)).rules
        return cls(clients, dimension, dropped, rules.threshold_for(clients))

    @property
    def checksum(self) -> int:
        """CRC-32 of the sum that the peer must find."""
        return zlib.crc32((quantized(self.dimension) * np.uint32(self.clients - self.dropped)).tobytes())

    def seconds(self) -> float:
        """Our time, in a real round whose sum must be right."""
        session = Session(self.clients, self.dimension, self.dropped)
        server, replies = _before_unmasking(session)
        fresh = copy.deepcopy(server)
        started = time.perf_counter()
        fresh.advance(replies)
        seconds = time.perf_counter() - started
        session.check(fresh.result)
        return seconds


def quantized(dimension: int) -> NDArray[np.uint32]:
    """Integers as a client would mask them; the peer computes the same."""
    return (np.arange(dimension, dtype=np.int64) * 2654435761 % (1 << 22)).astype(np.uint32)


@cache
def _terms(session: Session) -> Terms:
    return session.terms


@cache
def _public_keys(count: int) -> list[bytes]:
    return [AgreementKey.generate(os.urandom).public for _ in range(count)]


@cache
def _before_unmasking(session: Session) -> tuple[AggregationServer, list[tuple[str, bytes]]]:
    """The server of a real round, and the last replies, which it has not seen."""
    server, clients = session.server(Work(fastest())), session.members(session.names)
    requests = server.open()
    for step in track(range(Step.UNMASK), f"{session.clients} clients", transient=True):
        requests = server.advance(
            (name, clients[name].handle(requests[name])) for name in session.asked(step, requests)
        )
    return server, [(name, clients[name].handle(request)) for name, request in requests.items()]


def _short(dimension: int) -> str:
    """1e6 for a million."""
    return f"{dimension:.0e}".replace("e+0", "e")
