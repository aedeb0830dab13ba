"""Secure aggregation: our masks and our unmasking beside Flower's SecAgg+, what a round costs, what the server holds.

Compared is like with like, one thread a side, in one run and by turns; medians are reported. Flower's side runs its own
functions in a process of its own (``benchmarks/peers``), measures itself and is checked to have done the work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from rich.progress import track

from benchmarks import attacks, cohort
from benchmarks import round as one
from benchmarks.masked import ClientMask, ServerUnmask
from benchmarks.peers.process import COMMAND, FLOWER, Peer, PeerMissing
from benchmarks.rows import Row, ratio_row, value_row
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import Engine
from securefl.keystream import fastest, gigabytes_per_second

TITLE = "Secure aggregation"
MILLION = 1_000_000
# A peer that needs longer for one repetition is not asked for another, and its row says so.
_PATIENCE = 300.0


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: of the ratios the headline, and unmasking on a smaller cohort."""
    repetitions = 3 if quick else 5
    with _peer() as peer:
        found = [compare(work, peer, repetitions, quick) for work in _compared(quick)]
    return [*found, keystream_row(repetitions, quick), *_round_rows(repetitions, quick), *_counted_rows(quick)]


def _compared(quick: bool) -> Iterator[ClientMask | ServerUnmask]:
    yield ClientMask(MILLION, 99)
    if quick:
        yield ServerUnmask.of(30, MILLION // 10, 3)
        return
    yield from (ClientMask(dimension, 99) for dimension in (MILLION // 10, 10 * MILLION))
    yield from (ClientMask(dimension, peers) for dimension in (MILLION // 10, MILLION) for peers in (9, 49))
    yield from (ServerUnmask.of(100, MILLION, dropped) for dropped in (10, 0))


def compare(work: ClientMask | ServerUnmask, peer: Peer | None, repetitions: int, quick: bool) -> Row:
    """One work by us and by the peer, by turns."""
    ours, theirs = Samples(), Samples()
    for _ in track(range(repetitions), str(work), transient=True):
        ours.add(work.seconds())
        if peer is not None and theirs.last < _PATIENCE:
            theirs.add(peer.seconds(work, work.checksum))
    name = f"Flower: {COMMAND}" if peer is None else f"{peer.version}{theirs.remark(repetitions)}"
    return ratio_row(str(work), ours.median, "s", name, theirs.median if peer else None, quick, work.GOAL)


@dataclass
class Samples:
    """One figure, repetition after repetition."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.values.append(value)

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else 0.0

    @property
    def median(self) -> float:
        return median(self.values)

    def remark(self, planned: int) -> str:
        """What to say where fewer repetitions than planned were run."""
        return "" if len(self.values) == planned else f", {len(self.values)} run"


def keystream_row(repetitions: int, quick: bool) -> Row:
    """Masks added, in bytes of keystream a second, beside the fastest raw AES engine of this machine."""
    engine, vector = Work(fastest()), np.zeros(MILLION, np.uint32)
    ring = cohort.Session(100, MILLION).encoding.layout.ring
    masks = [Mask(os.urandom(16), 1) for _ in range(99)]
    ours, raw = Samples(), Samples()
    for _ in track(range(3 * repetitions), "keystream", transient=True):
        started = time.perf_counter()
        apply_masks(vector, ring, masks, engine)
        ours.add(len(masks) * vector.nbytes / (time.perf_counter() - started) / 1e9)
        raw.add(max(gigabytes_per_second(engine) for engine in Engine))
    name = "keystream_vs_fastest_engine"
    return ratio_row(name, ours.median, "GB/s", "raw AES engine", raw.median, quick, 0.6)


def _round_rows(repetitions: int, quick: bool) -> Iterator[Row]:
    """A round of 10 clients and 1e6 parameters, training excluded: seconds on the critical path, and uploads."""
    masked, plain = Samples(), Samples()
    for _ in track(range(2 * repetitions), "round", transient=True):
        masked.add(one.one_round("secagg").seconds)
        plain.add(one.one_round("plain").seconds)
    yield value_row("secagg_round_vs_plain", masked.median / plain.median, "x", quick, 4.0)
    yield value_row("plain_round_milliseconds", 1e3 * plain.median, "ms", quick, 15.0)
    for bits, goal in ((32, 4.05), (24, 3.05)):
        upload = cohort.run(cohort.Session(10, MILLION, bits=bits)).upload
        yield value_row(f"upload_bytes_per_parameter_{bits}", max(upload.values()) / MILLION, "B", quick, goal)


def _counted_rows(quick: bool) -> Iterator[Row]:
    clients = 100 if quick else 1000
    large, small = (cohort.run_apart(cohort.Session(clients, dimension)) for dimension in (MILLION, 1000))
    vectors = (large.server_bytes - small.server_bytes) / (4 * MILLION)
    yield value_row(f"server_memory_vectors_n{clients}", vectors, "vectors", quick, 10.0)
    shown = len(attacks.shown())
    yield Row("shown_attacks", shown, "attacks", None, None, None, 25, shown >= 25, quick)


@contextmanager
def _peer() -> Iterator[Peer | None]:
    """Flower, or None where its environment was not made: its rows then say so."""
    try:
        peer = Peer(FLOWER)
    except PeerMissing:
        yield None
        return
    with peer:
        yield peer
