"""The commands for who does not want to take anybody's word: ``report``, ``verify`` and ``ledger``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from securefl.cli.options import AsJson, Folder, Ledger, Ledgers, console_for
from securefl.errors import VerificationFailed

if TYPE_CHECKING:
    from securefl.verification.one_ledger import Account

Key = Annotated[
    str | None,
    typer.Option("--key", metavar="HEX", help="The owner's Ed25519 public key, if you know it from elsewhere."),
]

ledger = typer.Typer(
    name="ledger",
    no_args_is_help=True,
    help="What was charged to a data set: show, verify or export one client's ledger.",
)


class Format(StrEnum):
    """What a report can be written as."""

    html = "html"
    json = "json"
    registry = "dp-registry"
    card = "model-card"


def report(
    folder: Folder,
    form: Annotated[
        Format, typer.Option("--format", help="html, json, dp-registry (YAML of the OpenDP registry) or model-card.")
    ] = Format.html,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run again, from its folder alone; also of an unfinished one.

    Example:  [bold]securefl report runs/heart-1 --format model-card[/]
    """
    from securefl import report as reports

    writers = {
        Format.html: reports.render,
        Format.json: reports.render_json,
        Format.registry: reports.render_registry,
        Format.card: reports.render_card,
    }
    path = writers[form](folder)
    typer.echo(msgspec.json.encode({"report": str(path)}).decode() if as_json else str(path))


def verify(
    folder: Folder,
    ledgers: Ledgers = None,
    as_json: AsJson = False,
) -> None:
    """Check a run's report offline: signatures, ledgers, plan, model, and every epsilon by two accountants.

    Exit code 4 if anything does not fit.

    Example:  [bold]securefl verify runs/heart-1 --ledgers ledgers/heart[/]
    """
    from securefl.verification import lines, verified

    console = console_for(as_json)
    with console.status("checking signatures, recomputing epsilons", spinner="line"):
        verdict = verified(folder, ledgers)
    for line in lines(verdict):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if verdict.problems and not as_json:
        count = f"{len(verdict.problems)} mismatch{'es' * (len(verdict.problems) > 1)}"
        raise VerificationFailed(f"{count} in {folder}: rely on no figure of its report")
    if as_json:
        typer.echo(msgspec.json.encode(verdict).decode())
        raise typer.Exit(VerificationFailed.exit_code if verdict.problems else 0)


@ledger.command()
def show(path: Ledger, as_json: AsJson = False) -> None:
    """Print every charge in a ledger, and what they come to.

    Example:  [bold]securefl ledger show ledgers/heart/va.sqlite[/]
    """
    from securefl.verification.one_ledger import account

    found = account(path, None)
    _say(found, (*found.charges, *found.lines), as_json)


@ledger.command(name="verify")
def verify_ledger(path: Ledger, key: Key = None, as_json: AsJson = False) -> None:
    """Check one ledger offline: links, signatures, budgets. Also reads what 'export' wrote.

    Example:  [bold]securefl ledger verify ledgers/heart/va.sqlite[/]
    """
    from securefl.verification.one_ledger import account

    found = account(path, key)
    _say(found, found.lines, as_json)


@ledger.command()
def export(path: Ledger) -> None:
    """Print a whole ledger as JSON, with all that is needed to verify it without SQLite.

    Example:  [bold]securefl ledger export ledgers/heart/va.sqlite > va.json[/]
    """
    from securefl.privacy import ledger as ledgers

    typer.echo(ledgers.export(path), nl=False)


def _say(found: Account, lines: Iterable[str], as_json: bool) -> None:
    console = console_for(as_json)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
