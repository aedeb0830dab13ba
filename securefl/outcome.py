"""How a round ended, as the server knows it: kept in one piece with the model that it led to."""

from __future__ import annotations

import time

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


def outcome(round: int, attempt: int, aggregate: Aggregate, started: float) -> Outcome:
    """That of a sum which nobody has evaluated yet; ``started``: by ``time.perf_counter``."""
    return Outcome(
        round,
        attempt,
        aggregate.contributors,
        aggregate.sum.recovered,
        # A refusal or a fault says more than "exchange 2": show it.
        {**aggregate.dropped, **aggregate.faults},
        None,
        {name: frozenset(others) for name, others in aggregate.disputes.items()},
        time.perf_counter() - started,
    )
