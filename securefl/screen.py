"""What a person sees while a round goes on: at which exchange it is, and how many clients have answered.

Words of how clients are reached become lines of their own, on a terminal and in a log; a log has no line a stage.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from securefl.progress import PRESENCE, Stage, Watcher

if TYPE_CHECKING:
    from rich.console import Console

    from securefl.job import Job

WORDS: Final = {
    PRESENCE: "looking who can be asked",
    "keys": "keys",
    "shares": "shares",
    "masked-input": "training, then masked input",
    "consistency": "consistency",
    "unmask": "unmasking",
    "sum": "apply (which sum)",
    "apply": "apply (decrypting)",
    "join": "CKKS key (joining)",
    "make-key": "CKKS key (one makes it)",
    "receive-key": "CKKS key (handing out)",
    "share-key": "CKKS key (catching up)",
    "seal-model": "model (sealing)",
    "install-model": "model (catching up)",
}
"""By kind of stage."""
_UNMASKED: Final = "training, then update"
_AT_THE_END: Final = ("seal-model", "install-model")


class Screen(Watcher):
    """One console's."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()
        self._last = ""
        self._now: Stage | None = None

    def stage(self, stage: Stage) -> None:
        self._now = stage

    def tell(self, what: str) -> None:
        """One line, unless it is the one before once more."""
        with self._lock:
            again, self._last = what == self._last, what
        if again:
            return
        # Where nobody reads any more, rich raises SystemExit: it would end the thread that tells, and keeps a line up.
        with suppress(OSError, SystemExit):
            self._console.print(what, soft_wrap=not self._console.is_terminal, markup=False, highlight=False)

    def doing(self, job: Job, current: int) -> str:
        """What is being done now, in one line, where ``current`` is the round that has begun."""
        now = self._now
        if current > job.rounds:
            return "last evaluation" if now is None or now.kind not in _AT_THE_END else _at(job, now)
        if now is None or now.round not in (0, current):
            return f"round {current} of {job.rounds}"
        return f"{f'round {current} of {job.rounds}' if now.round else 'before round 1'}: {_at(job, now)}"


def _at(job: Job, now: Stage) -> str:
    if now.kind == PRESENCE:
        return WORDS[PRESENCE]
    words = _UNMASKED if now.kind == "masked-input" and not job.masked else WORDS.get(now.kind, now.kind)
    return f"{words}, {now.answered} of {now.asked} answered"
