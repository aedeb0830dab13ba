"""Lines with a label, as the commands of a set-up print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from securefl.errors import BadInput
from securefl.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from securefl.deployment.checks import Finding


def labelled(console: Console, lines: Mapping[str, str]) -> None:
    """One line an entry, whatever is in it: some texts are others' words."""
    for label, text in lines.items():
        console.print(f"{label:12} {printable(text)}", soft_wrap=True, markup=False, highlight=False)


def findings(console: Console, found: Sequence[Finding], as_json: bool) -> None:
    """What a check found, and as JSON where it was asked for. Leaves with exit code 2 if there is a problem."""
    styles = {"ok": "", "warning": "yellow", "problem": "bold red"}
    for one in found:
        word = "" if one.level == "ok" else f"{one.level.upper()}: "
        line = f"{one.subject:12} {word}{printable(one.text)}"
        console.print(line, style=styles[one.level], soft_wrap=True, markup=False, highlight=False)
    problems = sum(one.level == "problem" for one in found)
    if as_json:
        typer.echo(msgspec.json.encode({"problems": problems, "findings": found}).decode())
    if problems:
        raise typer.Exit(BadInput.exit_code)
