"""The commands that keep running: ``server start``, ``site start`` and ``client``; and a site's consent to plans."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from securefl.cli.lines import labelled
from securefl.cli.options import AsJson, ServerHome, SiteHome, console_for
from securefl.cli.serving import server
from securefl.cli.siting import site


@server.command("start")
def start_server(folder: ServerHome) -> None:
    """Keep the server running, until Ctrl-C or SIGTERM.

    Example:  [bold]securefl server start coordinator[/]
    """
    from securefl.deployment.checks import near_their_end
    from securefl.deployment.server_folder import ServerFolder
    from securefl.deployment.supervisor import Supervisor
    from securefl.engines.nvflare import kit
    from securefl.run_lock import lock

    home = ServerFolder(folder)
    address = home.invitation()
    held = lock(home.path)
    kit.harden(home.kit, "server")
    for warning in near_their_end(home.kit):
        _say(warning)
    supervisor = Supervisor(home.path, _say)
    supervisor.add("server", kit.server_command(home.kit), home.path / "server.log")
    _say(f"sites dial {address.host}:{address.port}; Ctrl-C ends")
    supervisor.run()
    del held


@site.command("start")
def start_site(folder: SiteHome) -> None:
    """Keep the site running, until Ctrl-C or SIGTERM: the client process, and the one that dials the server.

    Example:  [bold]securefl site start hospital-1[/]
    """
    from securefl.deployment.checks import near_their_end
    from securefl.deployment.site_folder import SiteFolder
    from securefl.deployment.supervisor import Supervisor
    from securefl.engines.nvflare import kit

    home = SiteFolder(folder)
    invited, name = home.invitation(), home.site_file().name
    home.roster()
    held = home.lock_start()
    kit.harden(home.kit, "site")
    for warning in near_their_end(home.kit):
        _say(warning)
    supervisor = Supervisor(home.path, _say)
    own = [sys.executable, "-m", "securefl", "client", str(home.path.absolute())]
    supervisor.add("client", own, home.path / "client.log")
    supervisor.add("line", kit.site_command(home.kit), home.path / "line.log")
    _say(f"{name} dials {invited.host}:{invited.port}; Ctrl-C ends")
    supervisor.run()
    del held


def client(folder: SiteHome) -> None:
    """Run a site's client process alone: it has data, keys and ledger, and answers on a socket in the folder.

    'securefl site start' runs it, and starts it again if it dies.

    Example:  [bold]securefl client hospital-1[/]
    """
    from securefl.deployment.serving import serve
    from securefl.deployment.site_folder import SiteFolder

    serve(SiteFolder(folder), lambda: _say("ready"))


@site.command()
def plans(folder: SiteHome, as_json: AsJson = False) -> None:
    """List the plans that wait for approval, with what they would do.

    Example:  [bold]securefl site plans hospital-1[/]
    """
    from securefl.deployment.approvals import Approvals
    from securefl.deployment.site_folder import SiteFolder
    from securefl.deployment.words import described

    waiting = Approvals(SiteFolder(folder).plans).waiting()
    console = console_for(as_json)
    for one in waiting:
        labelled(console, described(one))
    if not waiting:
        console.print("no plan waits for approval")
    if as_json:
        answer = [{"name": one.name, "proposed_by": one.by, "plan": one.plan} for one in waiting]
        typer.echo(msgspec.json.encode(answer).decode())


_PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's hash, as 'securefl site plans' prints it.")]
_By = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who proposed it, as 'securefl site plans' says, where more than one did."),
]


@site.command()
def approve(folder: SiteHome, plan: _PlanName, by: _By = None, as_json: AsJson = False) -> None:
    """Take part in one run, of whoever proposed it, of a plan that waits for approval.

    Example:  [bold]securefl site approve hospital-1 3f0c...[/]
    """
    from securefl.deployment.approvals import Approvals
    from securefl.deployment.site_folder import SiteFolder
    from securefl.deployment.words import described

    approved = Approvals(SiteFolder(folder).plans).approve(plan, by)
    whose = f"for one run of {approved.by}, whichever begins first"
    labelled(console_for(as_json), {**described(approved), "approved": whose})
    if as_json:
        typer.echo(msgspec.json.encode({"approved": plan, "proposed_by": approved.by}).decode())


@site.command()
def reject(folder: SiteHome, plan: _PlanName, by: _By = None, as_json: AsJson = False) -> None:
    """Have a plan wait no longer, however often it is proposed; it can be approved all the same later.

    Example:  [bold]securefl site reject hospital-1 3f0c...[/]
    """
    from securefl.deployment.approvals import Approvals
    from securefl.deployment.site_folder import SiteFolder

    rejected = Approvals(SiteFolder(folder).plans).reject(plan, by)
    labelled(console_for(as_json), {"rejected": f"plan {rejected.name}, proposed by {rejected.by}"})
    if as_json:
        typer.echo(msgspec.json.encode({"rejected": plan, "proposed_by": rejected.by}).decode())


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()
