"""Where a report asks the accountant, on behalf of whoever stated something: it always gets an answer, never an error.

A client's statement may hold anything that its types allow; none may stop the report of the others, or hold it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from securefl.errors import AccountingMismatch, BadInput
from securefl.privacy import accountant
from securefl.privacy.mechanism import Release, Unit, cost

MOST_KINDS: Final = 200
"""Of different releases that are composed: a sampled one can take seconds."""


@dataclass(frozen=True)
class Figures:
    """Epsilon by the accountant that decides, its name, and the other's ``cross_check``; each may be infinite."""

    epsilon: float
    cross_check: float
    accountant: str


@dataclass(frozen=True)
class Unanswered:
    """Why there are no figures. ``word``: "none" where nothing bounds these releases for the unit, else "unknown"."""

    word: Literal["none", "unknown"]
    why: str


def figures(releases: Sequence[Release], delta: float, unit: Unit) -> Figures | Unanswered:
    """What ``releases`` come to, by both accountants. Guarantee: as :func:`securefl.privacy.accountant.epsilon`."""
    if reason := _unbounded(releases, unit):
        return Unanswered("none", reason)
    try:
        require_few(releases)
        with explained():
            return Figures(
                accountant.epsilon(releases, delta, unit),
                accountant.cross_check(releases, delta, unit),
                accountant.decides(releases, delta, unit),
            )
    except (AccountingMismatch, BadInput) as error:
        return Unanswered("unknown", str(error))


def require_few(releases: Iterable[Release]) -> None:
    """Raise ``BadInput`` for so many different releases that composing them would take many minutes."""
    if (kinds := len(set(releases))) > MOST_KINDS:
        raise BadInput(f"{kinds} different releases are more than the {MOST_KINDS} that are composed here")


@contextmanager
def explained() -> Iterator[None]:
    """Turn what arithmetic on extreme numbers raises, in the packages below too, into ``BadInput``."""
    try:
        yield
    except (ArithmeticError, ValueError, IndexError, MemoryError) as error:
        raise BadInput(f"no accountant here computes these charges ({type(error).__name__}: {error})") from error


def _unbounded(releases: Sequence[Release], unit: Unit) -> str | None:
    try:
        for kind in set(releases):
            cost(kind, unit)
    except BadInput as error:
        return str(error)
    return None
