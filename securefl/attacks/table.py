"""All attacks against all settings: one table, as values."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, cast

from msgspec import Struct

from securefl.attacks.cell import Cell, Effort, Verdict
from securefl.attacks.settings import SETTINGS
from securefl.errors import BadInput
from securefl.report.software import versions

MODULES: Final = (
    "inversion",
    "gradient_matching",
    "imprint",
    "inconsistency",
    "difference",
    "membership",
    "poisoning",
    "backdoor",
    "shares",
    "collusion",
)
"""In the order of the table; each is a module beside this one."""

VERDICTS: Final[dict[Verdict, str]] = {
    "red": "succeeds",
    "amber": "succeeds in part",
    "green": "fails",
    "none": "does not apply",
}


class Attack(Protocol):
    """What a module of an attack has."""

    NAME: str
    SOURCE: str
    ADVERSARY: str

    def cells(self, effort: Effort) -> Iterator[Cell]: ...


class Row(Struct, frozen=True):
    """One attack. ``cells``: one a setting; more where a defence is shown beside its absence."""

    name: str
    source: str
    adversary: str
    cells: tuple[Cell, ...]
    seconds: float

    @property
    def lines(self) -> dict[str, dict[str, Cell]]:
        """The cells by setting, for the attack itself and for each variant of it that a defence makes."""
        found: dict[str, dict[str, Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.attack, {})[cell.setting] = cell
        return found


class Table(Struct, frozen=True):
    """``settings``: names and titles, in order."""

    settings: dict[str, str]
    rows: tuple[Row, ...]
    effort: Effort
    seconds: float
    software: dict[str, str]


def names() -> tuple[str, ...]:
    """The attacks that can be named."""
    return tuple(module.replace("_", "-") for module in MODULES)


def table(effort: Effort, only: Sequence[str] = (), watch: Callable[[Cell], None] = lambda cell: None) -> Table:
    """Run all attacks, or ``only`` those named; ``watch`` is called with each cell. Raises ``BadInput``."""
    if unknown := sorted(set(only) - set(names())):
        raise BadInput(f"unknown attack {', '.join(unknown)}: choose of {', '.join(names())}")
    started = time.perf_counter()
    chosen = [module for module, name in zip(MODULES, names(), strict=True) if not only or name in only]
    rows = tuple(_row(module, effort, watch) for module in chosen)
    titles = {setting.name: setting.title for setting in SETTINGS}
    return Table(titles, rows, effort, time.perf_counter() - started, versions())


def _row(module: str, effort: Effort, watch: Callable[[Cell], None]) -> Row:
    attack = cast(Attack, importlib.import_module(f"securefl.attacks.{module}"))
    started, found = time.perf_counter(), []
    for cell in attack.cells(effort):
        found.append(cell)
        watch(cell)
    return Row(attack.NAME, attack.SOURCE, attack.ADVERSARY, tuple(found), time.perf_counter() - started)
