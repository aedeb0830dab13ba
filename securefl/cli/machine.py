"""The command about this machine: ``doctor``."""

from __future__ import annotations

import msgspec
import typer

from securefl.cli.options import AsJson, console_for


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, processor, data sets, cryptographic parameters.

    Example:  [bold]securefl doctor --json[/]
    """
    from securefl.doctor import examine, lines

    health = examine()
    console = console_for(as_json)
    for label, text in lines(health):
        console.print(f"{label:14} {text}", soft_wrap=True, markup=False, highlight=False)
    for problem in health.problems:
        console.print(f"{'PROBLEM':14} {problem}", soft_wrap=True, markup=False, highlight=False, style="bold red")
    if as_json:
        typer.echo(msgspec.json.encode(health).decode())
    if any(version is None for name, version in health.versions.items() if name != "securefl"):
        raise typer.Exit(2)
