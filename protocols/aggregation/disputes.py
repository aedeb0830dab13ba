"""Disputes about shares: a dealer signed them, a receiver signed that they do not open. One of the two is lying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from protocols.base import ClientId


def suspects(disputes: Mapping[ClientId, Collection[ClientId]]) -> frozenset[ClientId]:
    """Whom to leave out so that no dispute is left between two who stay: those in most disputes first.

    ``disputes`` maps dealers to who complains about them. Honest clients dispute with liars only. Where several are in
    equally many disputes, all of them go: nothing tells them apart.
    """
    left = {(dealer, complainer) for dealer, complainers in disputes.items() for complainer in complainers}
    gone: set[ClientId] = set()
    while left:
        counts = Counter(name for pair in left for name in pair)
        most = max(counts.values())
        worst = {name for name, count in counts.items() if count == most}
        gone |= worst
        left = {pair for pair in left if not worst.intersection(pair)}
    return frozenset(gone)
