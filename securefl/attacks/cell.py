"""What an attack reports: one cell a setting, with figures, a verdict in words, and pictures where there are any."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Verdict = Literal["red", "amber", "green", "none"]
"""The attack succeeded; in part; failed; or does not apply."""

Effort = Literal["quick", "full"]
"""How much time an attack is given: about ten seconds, or up to a few minutes."""


class Figure(Struct, frozen=True):
    """One number, by the field's name for it. ``unit``: "dB", "share", "" for none."""

    name: str
    value: float
    unit: str = ""

    @property
    def amount(self) -> str:
        """The value with its unit."""
        if self.unit == "share":
            return f"{100 * self.value:.3g} %" if abs(self.value) >= 5e-4 or not self.value else "< 0.1 %"
        return f"{self.value:.3g}{' ' * bool(self.unit)}{self.unit}"

    def __str__(self) -> str:
        return f"{self.name} {self.amount}"


class Picture(Struct, frozen=True):
    """A picture in grey, row by row, values 0 to 1; ``caption``: "original", "reconstructed"."""

    caption: str
    rows: tuple[tuple[float, ...], ...]


class Cell(Struct, frozen=True):
    """One attack under one setting. ``figures``: the first one decides the verdict. ``why`` it ends so, and what would
    help (``remedy``) where it is not green; empty where nothing needs to be said.
    """

    attack: str
    setting: str
    verdict: Verdict
    figures: tuple[Figure, ...]
    why: str
    remedy: str = ""
    pictures: tuple[Picture, ...] = ()
