"""What goes on in a run, for whoever watches it: where it stands, and words of how the clients are reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from securefl.records import RoundRecord
    from securefl.transcript import Crossing

Tell = Callable[[str], None]
"""Hears how the clients are reached, in words for the coordinator. It may be called from any thread."""

PRESENCE: Final = "presence"
"""The kind of stage before an attempt: looking who can be asked."""


class Stage(Struct, frozen=True):
    """One exchange as it goes on: ``answered`` of ``asked`` clients so far. ``kind``: as in the transcript, or
    ``PRESENCE``; ``round``: 0 for the set-up.
    """

    round: int
    kind: str
    asked: int
    answered: int


class Watcher:
    """Hears what goes on in a run, and by itself does nothing with it. Whoever overrides a method has to be quick and
    to raise nothing: the run waits. ``tell`` is called from any thread, the others from the one that runs the round.
    """

    def stage(self, stage: Stage) -> None:
        """An exchange began, or one more client answered."""

    def crossed(self, crossing: Crossing) -> None:
        """A message travelled."""

    def completed(self, record: RoundRecord) -> None:
        """A round is committed and written down."""

    def tell(self, what: str) -> None:
        """Words of how the clients are reached. The same ones may come again and again, as long as they hold."""


class Watchers(Watcher):
    """Several who hear the same."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def stage(self, stage: Stage) -> None:
        for watcher in self._watchers:
            watcher.stage(stage)

    def crossed(self, crossing: Crossing) -> None:
        for watcher in self._watchers:
            watcher.crossed(crossing)

    def completed(self, record: RoundRecord) -> None:
        for watcher in self._watchers:
            watcher.completed(record)

    def tell(self, what: str) -> None:
        for watcher in self._watchers:
            watcher.tell(what)


def nobody(what: str) -> None:
    """A ``Tell`` that nobody hears."""
