"""When it is whose turn, as one peer sees it that cannot see whether others live: it has their silence to go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from securefl.account import ATTEMPTS
from securefl.engines.correspondence import Deadlines

_SLACK: Final = 5.0  # seconds, in which whoever acts works between two exchanges
_EXCHANGES: Final = 12  # of one attempt, everything counted


class Clock:
    """Of one run. Whoever acts has as long as its next exchange may take; then it is the next one's turn, and so on.

    How long one turn may last in all is bounded, whatever whoever acts sends meanwhile.
    """

    def __init__(self, deadlines: Deadlines, now: Callable[[], float] = time.monotonic) -> None:
        self._deadlines = deadlines
        self._now = now
        self._until = self._latest = self._started = 0.0
        self._heard = now()
        self.turned()

    @property
    def step(self) -> float:
        """Seconds until a turn in which nothing is heard is over."""
        return self._deadlines.exchange + _SLACK

    @property
    def longest(self) -> float:
        """Seconds that one turn may last in all."""
        return ATTEMPTS * (_EXCHANGES * self.step + self._deadlines.training)

    @property
    def silent(self) -> bool:
        """Whether nobody who acts has been heard for longer than that."""
        return self._now() > self._heard + self.longest

    @property
    def early(self) -> bool:
        """Whether this turn has only just begun."""
        return self._now() < self._started + self.step / 2

    def turned(self) -> None:
        """Another round began, or another turn was given."""
        self._started = self._now()
        self._until = self._started + self.step
        self._latest = self._started + self.longest

    def heard(self, request: bytes) -> None:
        """Whoever acts has asked this: until the answers are in, nothing more need come."""
        wait = self._deadlines.of(request) + self.step
        self._heard = self._now()
        self._until = min(max(self._until, self._heard + wait), self._latest)

    def turn(self, given: int) -> int:
        """The turn that it is time for, where this peer gave this one last."""
        late = self._now() - self._until
        return given if late < 0 else given + 1 + int(late // self.step)

    def overdue(self, round: int, first: int, turn: int) -> bool:
        """Whether all turns from ``first`` on and before ``turn`` have had their time."""
        return self.turn(first) >= turn
