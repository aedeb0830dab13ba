"""The commands of a coordinator of separate organisations: ``server init``, ``admit``, ``roster`` and ``check``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from securefl.cli.lines import findings, labelled
from securefl.cli.options import AsJson, Days, NewFolder, SentFile, ServerHome, console_for
from securefl.errors import Refused

server = typer.Typer(
    name="server",
    no_args_is_help=True,
    help="For the coordinator of separate organisations: set up the server, admit sites, write the roster.",
)


@server.command()
def init(
    folder: NewFolder,
    name: Annotated[str, typer.Option(metavar="PROJECT", help="What the project is called.")],
    host: Annotated[str, typer.Option(metavar="HOST", help="The name or IPv4 address that sites dial.")],
    port: Annotated[int, typer.Option(metavar="PORT", help="The one port that sites dial.")] = 8002,
    days: Days = 1095,
    as_json: AsJson = False,
) -> None:
    """Make a root of trust, the server, and an invitation for the sites.

    Example:  [bold]securefl server init coordinator --name diabetes --host fl.example.org[/]
    """
    from securefl.deployment.names import grouped
    from securefl.deployment.server_folder import ServerFolder

    console = console_for(as_json)
    home = ServerFolder(folder)
    with console.status("making keys and certificates", spinner="line"):
        invited = home.init(name, host, port, days)
    labelled(
        console,
        {
            "made": f"{folder}, which is private to you; keep a copy of {home.authority} where nobody else gets at it",
            "give sites": str(home.invitation_file),
            "tell them": f"on the telephone, say, the root's fingerprint {grouped(invited.authority)}",
            "next": f"as their requests arrive: securefl server admit {folder} NAME.request",
        },
    )
    if as_json:
        answer = {"folder": str(folder), "invitation": str(home.invitation_file), "fingerprint": invited.authority}
        typer.echo(msgspec.json.encode(answer).decode())


@server.command()
def admit(
    folder: ServerHome,
    request: SentFile,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the check number was compared before.")] = False,
    days: Days = 1095,
    as_json: AsJson = False,
) -> None:
    """Admit a site: show what it asks for, certify its key, keep its identity.

    Example:  [bold]securefl server admit coordinator hospital-1.request[/]
    """
    from securefl.deployment import admission
    from securefl.deployment.names import grouped
    from securefl.deployment.server_folder import ServerFolder

    home = ServerFolder(folder)
    asked = admission.read(request, home.invitation().project)
    home.refuse_taken(asked)
    console = console_for(as_json)
    labelled(
        console,
        {
            "site": f"{asked.name} of {asked.organisation}",
            "identity": grouped(asked.key),
            "TLS key": grouped(asked.tls_key),
            "check": f"{asked.check}: whoever sent this reads it to you, and has the same",
        },
    )
    if not yes:
        _ask("Have you both compared the check number, on the telephone?", as_json)
    with console.status("certifying", spinner="line"):
        signed = home.admit(asked, days)
    labelled(
        console, {"send back": str(signed), "next": f"when all sites are admitted: securefl server roster {folder}"}
    )
    if as_json:
        answer = {"name": asked.name, "organisation": asked.organisation, "check": asked.check, "signed": str(signed)}
        typer.echo(msgspec.json.encode(answer).decode())


@server.command()
def roster(
    folder: ServerHome,
    without: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A site that was admitted and has left; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the roster: who takes part from now on, with their keys. Every site pins it by its hash.

    Example:  [bold]securefl server roster coordinator --without hospital-9[/]
    """
    from securefl.deployment.names import grouped
    from securefl.deployment.server_folder import ServerFolder

    home = ServerFolder(folder)
    found = home.write_roster(without or ())
    labelled(
        console_for(as_json),
        {
            "members": ", ".join(f"{name} ({member.organisation})" for name, member in found.members.items()),
            "give sites": str(home.roster_file),
            "tell them": f"by another channel, its hash {grouped(found.hash())}",
            "next": f"at each site: securefl site join FOLDER NAME.signed.zip roster.json --roster {found.hash()}",
        },
    )
    if as_json:
        answer = {"roster": str(home.roster_file), "hash": found.hash(), "members": list(found.members)}
        typer.echo(msgspec.json.encode(answer).decode())


@server.command()
def check(folder: ServerHome, as_json: AsJson = False) -> None:
    """Look at everything that could fail later: certificates, the server's settings, the roster, who may read keys.

    Exit code 2 if there is a problem.

    Example:  [bold]securefl server check coordinator[/]
    """
    from securefl.deployment.checks import of_server
    from securefl.deployment.server_folder import ServerFolder

    console = console_for(as_json)
    with console.status("looking", spinner="line"):
        found = list(of_server(ServerFolder(folder)))
    findings(console, found, as_json)


def _ask(question: str, as_json: bool) -> None:
    """Go on with a yes only. Raises ``Refused`` for a no, and where nobody can answer."""
    try:
        answered = typer.confirm(question, err=as_json)
    except typer.Abort:
        answered = False
    if not answered:
        raise Refused("not admitted, nothing was changed: compare the check number, then answer y, or use --yes")
