"""The commands of a site among separate organisations: ``site init``, ``join``, ``check`` and ``accept-ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from securefl.cli.lines import findings, labelled
from securefl.cli.options import AsJson, NewFolder, SiteHome, console_for
from securefl.errors import BadInput, Refused

site = typer.Typer(
    name="site",
    no_args_is_help=True,
    help="For a site among separate organisations: make its keys, join a project, check the set-up.",
)


@site.command()
def init(
    folder: NewFolder,
    invitation: Annotated[Path, typer.Option(metavar="FILE", help="The invitation that the coordinator gave you.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What the site is called, for example hospital-1.")],
    org: Annotated[str, typer.Option(metavar="ORG", help="Its organisation: letters, digits and '_'.")],
    as_json: AsJson = False,
) -> None:
    """Make the site's keys, a request to be admitted, and site.toml to be edited. No private key leaves the folder.

    Example:  [bold]securefl site init site --invitation invitation.json --name hospital-1 --org St_Mary[/]
    """
    from securefl.deployment.invitation import read
    from securefl.deployment.names import grouped
    from securefl.deployment.site_folder import SiteFolder

    console = console_for(as_json)
    home = SiteFolder(folder)
    invited = read(invitation)
    with console.status("making keys", spinner="line"):
        request, sent = home.init(invited, name, org)
    labelled(
        console,
        {
            "made": f"{folder}, which is private to you: whoever reads it can speak as this site",
            "project": f"{invited.project}, at {invited.host}:{invited.port}",
            "compare": f"with the coordinator, on the telephone, the root's fingerprint {grouped(invited.authority)}",
            "send": str(sent),
            "read out": f"to the coordinator, on the telephone, the check number {request.check}",
            "identity": grouped(request.key),
            "TLS key": grouped(request.tls_key),
            "next": f"edit {home.file}, then securefl site check {folder}",
            "then": f"with what you are sent: securefl site join {folder} {name}.signed.zip roster.json --roster HASH",
        },
    )
    if as_json:
        answer = {"request": str(sent), "check": request.check, "key": request.key, "fingerprint": invited.authority}
        typer.echo(msgspec.json.encode(answer).decode())


@site.command()
def join(
    folder: SiteHome,
    files: Annotated[
        list[Path], typer.Argument(metavar="[NAME.signed.zip] roster.json", help="What the coordinator sent back.")
    ],
    roster: Annotated[str, typer.Option(metavar="HASH", help="The roster's hash, which you were told.")],
    as_json: AsJson = False,
) -> None:
    """Join a project, or take over a newer roster of it: then the roster alone is enough.

    Example:  [bold]securefl site join site hospital-1.signed.zip roster.json --roster 9f2c...[/]
    """
    from securefl.deployment.names import ungrouped
    from securefl.deployment.site_folder import SiteFolder

    *signed, given = files
    if len(signed) > 1:
        raise BadInput("name two files, NAME.signed.zip and roster.json, or the roster alone")
    console = console_for(as_json)
    home = SiteFolder(folder)
    with console.status("checking and building", spinner="line"):
        found = home.join(given, ungrouped(roster), signed[0] if signed else None)
    labelled(
        console,
        {
            "joined": f"{found.project}, of {len(found.members)} members: {', '.join(found.members)}",
            "pinned": f"{home.roster_file}: nobody else counts as a member",
            "next": f"securefl site check {folder}",
        },
    )
    if as_json:
        answer = {"project": found.project, "members": list(found.members), "hash": found.hash()}
        typer.echo(msgspec.json.encode(answer).decode())


@site.command()
def check(folder: SiteHome, as_json: AsJson = False) -> None:
    """Look at everything that could fail later: data, models, budget, certificate, roster, who may read keys.

    Loads the records. Exit code 2 if there is a problem.

    Example:  [bold]securefl site check site[/]
    """
    from securefl.deployment.checks import of_site
    from securefl.deployment.site_folder import SiteFolder

    console = console_for(as_json)
    with console.status("looking", spinner="line"):
        found = list(of_site(SiteFolder(folder)))
    findings(console, found, as_json)


@site.command("accept-ledger")
def accept_ledger(
    folder: SiteHome,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a ledger that is older than what was spent, or with none: what it lacks is counted no more.

    Restore the newest copy instead, if there is any. Else first take what was spent beyond the ledger, as the last
    reports say, off 'epsilon' in site.toml.

    Example:  [bold]securefl site accept-ledger hospital-1[/]
    """
    from securefl.deployment import ledger_head
    from securefl.deployment.site_folder import SiteFolder

    home = SiteFolder(folder)
    if (missing := ledger_head.lacking_in(home)) is None:
        raise BadInput(f"the ledger in {folder} has all that was charged: there is nothing to accept")
    question = f"The ledger is not the one that was charged ({missing}). Is what it lacks off 'epsilon' in site.toml?"
    try:
        agreed = yes or typer.confirm(question, err=as_json)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise Refused("nothing was changed: restore the newest copy, or lower epsilon, then answer y, or use --yes")
    left = ledger_head.accept(home)
    labelled(console_for(as_json), {"accepted": f"a ledger with {left} charges ({missing})"})
    if as_json:
        typer.echo(msgspec.json.encode({"charges": left}).decode())
