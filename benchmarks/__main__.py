"""The one command for all benchmarks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.rows import Row, table

SUBJECTS = (
    "round",
    "secagg",
    "scale",
    "ckks",
    "privacy",
    "heart",
    "heart_dp",
    "mnist",
    "pilots",
    "mcmahan",
    "strategies",
    "llm",
    "keyboard",
    "audit",
    "engines",
    "ray_simulation",
    "simulation",
    "many",
)


def measure(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"What to measure: {', '.join(SUBJECTS)}.")],
    quick: Annotated[bool, typer.Option("--quick", help="The headline rows only, with fewer repetitions.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the rows here, as a JSON list.")] = None,
) -> None:
    """Measure one subject and print a table."""
    if name not in SUBJECTS:
        raise typer.BadParameter(f"unknown subject {name!r}: choose one of {', '.join(SUBJECTS)}")
    subject = importlib.import_module(f"benchmarks.{name}")
    rows: list[Row] = subject.rows(quick)
    # Wide enough for every figure also where there is no terminal to ask.
    Console(width=max(110, Console().width)).print(table(subject.TITLE, rows))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


if __name__ == "__main__":
    typer.run(measure)
