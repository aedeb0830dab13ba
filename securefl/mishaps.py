"""What goes wrong with an owner's own records and must not show outside: told to the owner, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], None]
"""Takes a line for the owner's own log. What it says depends on records: it is never sent anywhere."""


def unheard(line: str) -> None:
    """For trials: nobody reads a log."""


def described(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


class LostRecords:
    """Counts records that added nothing to a sum, since the model's code failed on them."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def add(self, error: Exception) -> None:
        """One more of them."""
        self._first = self._first or described(error)
        self._count += 1

    def report(self, tell: Tell) -> None:
        """Say how many there were and why the first was lost; nothing where there were none."""
        if self._count:
            tell(f"the model's code failed on records {self._count} times, which added nothing; first {self._first}")
