"""Encrypted aggregation: our CKKS beside NVFLARE's recipe on TenSEAL: times, bytes, what is left of errors, memory.

Compared is like with like in one run, by turns; medians are reported. One process and one thread a side, but for the
row that says otherwise. Both sides' means are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from rich.progress import track

from benchmarks.client_apart import client_peaks
from benchmarks.encrypted import (
    Costs,
    Ours,
    SharedOut,
    compact,
    costs,
    masked_round,
    ours,
    shared_out,
    standard,
)
from benchmarks.nvflare_recipe import PEER, Apart
from benchmarks.round import CLIENTS, updates
from benchmarks.rows import Row, ratio_row, value_row

TITLE = f"CKKS beside NVFLARE's recipe with stock tenseal, {CLIENTS} clients, 1e6 parameters unless said"
MILLION = 1_000_000
_SMALL = 1000
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Figure:
    """What is compared, and the least that the ratio should be."""

    name: str
    seconds: Callable[[Costs], float]
    goal: float | None = None


HEADLINE = (
    Figure("encrypt_vs_nvflare", lambda side: side.encrypt + side.pack, 3.0),
    Figure("server_sum_vs_nvflare", lambda side: side.add, 15.0),
    Figure("decrypt_vs_nvflare", lambda side: side.decrypt, 1.0),
    Figure("round_vs_nvflare", lambda side: side.round, 4.0),
)
# The same without bytes on one side, and with bytes on the other.
BESIDE = (
    Figure("encrypt_only_vs_nvflare", lambda side: side.encrypt),
    Figure("load_and_decrypt_vs_nvflare", lambda side: side.unpack + side.decrypt),
)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: fewer repetitions, and not the largest dimension."""
    repetitions = 3 if quick else 5
    with Apart() as peer, shared_out() as shared:
        found = list(million_rows(MILLION, Turns(peer, shared, repetitions), quick))
        for dimension in (MILLION // 10,) if quick else (MILLION // 10, 10 * MILLION):
            found += size_rows(dimension, Turns(peer, None, repetitions), quick)
    return [*found, *byte_rows(MILLION, quick), *error_rows(MILLION, quick), *memory_rows(MILLION, quick)]


class Peer(Protocol):
    """Does one client, or the end, whenever it is its turn, and then has ``costs``."""

    def begin(self, dimension: int) -> None: ...

    def turn(self) -> None: ...

    @property
    def costs(self) -> Costs: ...


class Turns:
    """Both sides, client by client: ``ours``, ``theirs`` and, if there are processes for it, seconds of ``two``."""

    def __init__(self, peer: Peer, shared: SharedOut | None, repetitions: int) -> None:
        self._peer = peer
        self._shared = shared
        self._repetitions = repetitions
        self.ours: list[Costs] = []
        self.theirs: list[Costs] = []
        self.two: list[float] = []

    def take(self, dimension: int) -> None:
        for _ in track(range(self._repetitions), f"{dimension:,} parameters", transient=True):
            self._peer.begin(dimension)
            self.ours.append(ours(dimension, self._peer.turn))
            self.theirs.append(self._peer.costs)
            if self._shared is not None:
                self.two.append(self._shared.encrypt_seconds(dimension))

    def row(self, figure: Figure, quick: bool, suffix: str = "") -> Row:
        mine, peer = _median(self.ours, figure), _median(self.theirs, figure)
        return ratio_row(figure.name + suffix, mine, "s", PEER, peer, quick, None if suffix else figure.goal)


def million_rows(dimension: int, turns: Turns, quick: bool) -> Iterator[Row]:
    """The ratios that have goals, and what is beside them."""
    turns.take(dimension)
    yield from (turns.row(figure, quick) for figure in (*HEADLINE, *BESIDE))
    whole, theirs = HEADLINE[0], turns.theirs
    yield ratio_row(f"{whole.name}_two_processes", median(turns.two), "s", PEER, _median(theirs, whole), quick)
    yield value_row("ckks_client_encrypt_seconds", _median(turns.ours, whole), "s", quick)
    upload, peer = turns.ours[0].upload / dimension, turns.theirs[0].upload / dimension
    yield ratio_row("upload_vs_nvflare", upload, "B", PEER, peer, quick)
    error, peer = max(one.error for one in turns.ours), max(one.error for one in theirs)
    yield ratio_row("mean_error_vs_nvflare", error, "", PEER, peer, quick)


def size_rows(dimension: int, turns: Turns, quick: bool) -> Iterator[Row]:
    """The same ratios at another size, without goals."""
    turns.take(dimension)
    suffix = f"_d{dimension:.0e}".replace("e+0", "e")
    yield from (turns.row(figure, quick, suffix) for figure in HEADLINE)


def byte_rows(dimension: int, quick: bool) -> Iterator[Row]:
    """A masked round in the standard and the compact profile: bytes of the client with most, every exchange counted."""
    for suffix, parameters, goal in (("", standard(dimension), 7.1), ("_compact", compact(dimension), 5.1)):
        measured, error = masked_round(parameters, updates(dimension))
        up, down = (max(counted.values()) / dimension for counted in (measured.up, measured.down))
        yield value_row(f"upload_bytes_per_parameter{suffix}", up, "B", quick, goal)
        yield value_row(f"download_bytes_per_parameter{suffix}", down, "B", quick)
        yield value_row(f"mean_error{suffix}", error, "", quick, None if suffix else 1e-8)
        yield value_row(f"grid_step{suffix}", parameters.step, "", quick)


def error_rows(dimension: int, quick: bool) -> Iterator[Row]:
    """What the mean would be off by, did noise not round away."""
    side = Ours(standard(dimension))
    costs(side, updates(dimension))
    yield value_row("mean_error_before_rounding", side.noise(), "", quick)


def memory_rows(dimension: int, quick: bool) -> Iterator[Row]:
    """One client's peak over a whole round, in float32 vectors of this dimension; a small round's is taken off."""
    large, small = (client_peaks(size)[-1] for size in (dimension, _SMALL))
    vectors = (large - small) / (_FLOAT_BYTES * dimension)
    yield value_row("client_memory_vectors", vectors, "vectors", quick, 12.0)


def _median(side: Sequence[Costs], figure: Figure) -> float:
    return median(figure.seconds(one) for one in side)
