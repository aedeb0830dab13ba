"""What a benchmark reports: rows of a ratio to a peer, or of a value; printed as a table, written as JSON."""

from __future__ import annotations

from msgspec import Struct
from rich.table import Table


class Row(Struct, frozen=True):
    """One measured figure. A ratio row has ``peer``; its ``ratio`` is the factor by which we are better than the peer
    (null, and ``met`` false, if the peer did not run). A value row has neither. ``met`` is null where there is no goal.
    """

    name: str
    value: float
    unit: str
    peer: str | None
    peer_value: float | None
    ratio: float | None
    goal: float | None
    met: bool | None
    quick: bool


def value_row(name: str, value: float, unit: str, quick: bool, at_most: float | None = None) -> Row:
    """A figure of our own, with an upper goal or none."""
    return Row(name, value, unit, None, None, None, at_most, None if at_most is None else value <= at_most, quick)


def ratio_row(
    name: str, value: float, unit: str, peer: str, peer_value: float | None, quick: bool, at_least: float | None = None
) -> Row:
    """The same work by us and by a peer (``peer_value`` None: it did not run), with a lower goal for the ratio or none.

    A unit a second ("GB/s") is the better the more, any other the better the less.
    """
    ratio = None
    if peer_value is not None:
        ratio = value / peer_value if unit.endswith("/s") else peer_value / value
    met = None if at_least is None else ratio is not None and ratio >= at_least
    return Row(name, value, unit, peer, peer_value, ratio, at_least, met, quick)


def table(title: str, rows: list[Row]) -> Table:
    """Work, ours, peer, ratio, goal."""
    drawn = Table(title=title, title_justify="left")
    for column in ("work", "ours", "peer", "ratio", "goal", "met"):
        drawn.add_column(column, justify="left" if column == "work" else "right", no_wrap=True)
    for row in rows:
        met = {True: "yes", False: "no", None: ""}[row.met]
        drawn.add_row(row.name, f"{row.value:.4g} {row.unit}", _peer(row), _number(row.ratio), _number(row.goal), met)
    return drawn


def _peer(row: Row) -> str:
    if row.peer is None:
        return ""
    return f"{_number(row.peer_value) or 'did not run'} ({row.peer})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
