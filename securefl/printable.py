"""Text that others chose, as it may be shown to a person: on one line, with nothing that a terminal obeys."""

from __future__ import annotations

from typing import Final

_LONGEST: Final = 4000  # characters


def printable(text: str, longest: int = _LONGEST) -> str:
    """The same, where it is printable; else with escapes as Python writes them, and cut off where it is too long."""
    shown = text if text.isprintable() else "".join(map(_shown, text))
    return shown if len(shown) <= longest else f"{shown[:longest]}... ({len(shown)} characters)"


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
