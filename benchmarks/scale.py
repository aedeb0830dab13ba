"""Secure aggregation as the cohort grows: what a client pays, and that large rounds end with the right sum.

The key list is O(n) for every client; masks and shares are O(log n) on the sparse graph. They are reported apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cohort import Cost, Session, run
from benchmarks.rows import Row, value_row
from protocols.aggregation.session import Step

TITLE = "Secure aggregation at scale: means over the clients of a round, 1e3 parameters unless said"
CLIENTS = (10, 30, 100, 300, 1000, 3000, 10_000)
# What a round of many clients must do: end, with a twentieth of 1000 clients away, and with 10,000 clients.
LARGE = (Session(1000, 1_000_000, dropped=50), Session(10_000, 10_000))


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: small cohorts only."""
    found = [row for clients in CLIENTS[: 3 if quick else None] for row in cost_rows(Session(clients, 1000), quick)]
    # By figure, so that each grows from row to row.
    figures = list(dict.fromkeys(_figure(row) for row in found))
    found.sort(key=lambda row: figures.index(_figure(row)))
    return found if quick else [*found, *(row for session in LARGE for row in large_rows(session))]


def cost_rows(session: Session, quick: bool) -> Iterator[Row]:
    """What one client pays: time inside it, and bytes to and from it by what they are for."""
    cost = run(session)
    figures = {
        "client_cpu": (1e3 * sum(cost.cpu.values()), "ms"),
        "key_list": (cost.down[Step.SHARES], "B"),
        "shares": (cost.up[Step.SHARES] + cost.down[Step.INPUT], "B"),
        "input": (cost.up[Step.INPUT], "B"),
        "agreement": (_both(cost, Step.CONSISTENCY), "B"),
        "unmask": (_both(cost, Step.UNMASK), "B"),
    }
    for figure, (total, unit) in figures.items():
        yield value_row(f"{figure}_n{session.clients}", total / session.clients, unit, quick)


def large_rows(session: Session) -> Iterator[Row]:
    """How long a large round took here, from the first request to the checked sum, and the server's memory."""
    cost = run(session)
    size = f"n{session.clients}_d{session.dimension}_drop{session.dropped}"
    yield value_row(f"round_{size}", cost.seconds, "s", quick=False)
    yield value_row(f"client_cpu_{size}", sum(cost.cpu.values()) / session.clients, "s", quick=False)
    yield value_row(f"server_peak_{size}", cost.server_bytes / 1e9, "GB", quick=False)


def _both(cost: Cost, step: Step) -> int:
    return cost.up[step] + cost.down[step]


def _figure(row: Row) -> str:
    return row.name.rpartition("_n")[0]
