"""How a round ended, as the server knows it: kept in one piece with the model that it led to."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

from protocols.aggregation.server import Aggregate


class Outcome(Struct, frozen=True, array_like=True):
    """One round. ``dropped`` maps clients to where or why they were lost; ``disputes`` maps those whose shares are in
    dispute to those who say that they do not open. ``void``: clients could not decrypt the sum and kept the model from
    before. ``seconds``: what the attempt took until its sum was formed.
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    recovered: tuple[str, ...]
    dropped: dict[str, str]
    accuracy: float | None
    disputes: dict[str, frozenset[str]]
    seconds: float
    void: bool = False


def outcome(round: int, attempt: int, aggregates: Sequence[Aggregate], started: float) -> Outcome:
    """That of sums, of disjoint groups, which nobody has evaluated yet; ``started``: by ``time.perf_counter``."""
    return Outcome(
        round,
        attempt,
        tuple(sorted(name for one in aggregates for name in one.contributors)),
        tuple(name for one in aggregates for name in one.sum.recovered),
        # A refusal or a fault says more than "exchange 2": show it.
        {name: why for one in aggregates for name, why in {**one.dropped, **one.faults}.items()},
        None,
        {name: frozenset(others) for one in aggregates for name, others in one.disputes.items()},
        time.perf_counter() - started,
    )
