"""When it is whose turn, as one peer sees it that cannot see whether others live: it has their silence to go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from securefl.account import ATTEMPTS
from securefl.engines.correspondence import Deadlines

_SLACK: Final = 5.0  # seconds, in which whoever acts works between two exchanges
_EXCHANGES: Final = 12  # of one attempt, everything counted
_SOON: Final = 10.0  # seconds, for a short question and its answer


def step(deadlines: Deadlines) -> float:
    """Seconds until a turn in which nothing is heard is over."""
    return deadlines.exchange + _SLACK


def soon(deadlines: Deadlines) -> float:
    """Seconds that a peer waits for each answer as it asks for a turn: after all of them, most of its turn is left."""
    return min(_SOON, step(deadlines) / 4)


class Clock:
    """Of one run. Whoever acts has as long as its next exchange may take; then it is the next one's turn, and so on.

    How long one turn may last in all is bounded, whatever whoever acts sends meanwhile.
    """

    def __init__(self, deadlines: Deadlines, now: Callable[[], float] = time.monotonic) -> None:
        self._deadlines = deadlines
        self._now = now
        self._until = self._latest = self._started = 0.0
        self._reached = -1
        self.turned()

    @property
    def early(self) -> bool:
        """Whether this turn has only just begun."""
        return self._now() < self._started + step(self._deadlines) / 2

    def turned(self) -> None:
        """Another round began, or another turn was given."""
        self._started, self._reached = self._now(), -1
        self._begin()

    def reached(self, turn: int, given: int) -> None:
        """An honest peer at least is at this turn: if this one, who gave ``given`` last, is not, it is from now on."""
        if turn > self.turn(given):
            self._reached = turn
            self._begin()

    def heard(self, request: bytes) -> None:
        """Whoever acts asks this: until the answers are in, nothing more need come."""
        wait = self._deadlines.of(request) + step(self._deadlines)
        if self._now() < self._latest:
            self._until = max(self._until, min(self._now() + wait, self._latest))

    def turn(self, given: int) -> int:
        """The turn that it is time for, where this peer gave this one last."""
        late, first = self._now() - self._until, max(given, self._reached)
        return first if late < 0 else first + 1 + int(late // step(self._deadlines))

    def overdue(self, round: int, first: int, turn: int) -> bool:
        """Whether all turns from ``first`` on and before ``turn`` have had their time."""
        return self.turn(first) >= turn

    def _begin(self) -> None:
        self._until = self._now() + step(self._deadlines)
        self._latest = self._now() + ATTEMPTS * (_EXCHANGES * step(self._deadlines) + self._deadlines.training)
