"""The commands of runs without a server: ``site propose``, and ``server relay``, which carries what peers seal."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated

import msgspec
import typer

from securefl.cli.lines import labelled
from securefl.cli.options import AsJson, JobFile, ServerHome, SiteHome, console_for


def relay(folder: ServerHome) -> None:
    """Carry sealed letters between sites that act in turn, until Ctrl-C or SIGTERM. Needs 'server start' to run.

    Example:  [bold]securefl server relay coordinator[/]
    """
    from securefl.deployment.server_folder import ServerFolder
    from securefl.engines.nvflare import kit
    from securefl.engines.nvflare.jobs import Jobs
    from securefl.engines.nvflare.line import Line

    home, over = ServerFolder(folder), Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    admin = kit.admin(home.admin)
    line = Line(home.kit, Jobs(Path(admin.location), admin.username), home.roster().members, _say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        over.wait()
    finally:
        line.close()


def propose(
    folder: SiteHome,
    job_file: JobFile,
    deadline: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="For one exchange; who acts and is silent for longer is gone."),
    ] = 60.0,
    training: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="The same where sites train.")] = 900.0,
    as_json: AsJson = False,
) -> None:
    """Propose a run without a server: the sites act as it in turn. Each owner consents, as to any plan.

    Example:  [bold]securefl site propose hospital-1 job.toml[/]
    """
    from securefl import job
    from securefl.deployment.proposing import propose as proposed
    from securefl.deployment.site_folder import SiteFolder
    from securefl.engines.correspondence import Deadlines

    console = console_for(as_json)
    with console.status("preparing the plan", spinner="line"):
        made, plan = proposed(SiteFolder(folder), job.load(job_file), Deadlines(deadline, training))
    name = plan.digest().hex()
    labelled(
        console,
        {
            "proposed": f"run {made.run}, plan {name}",
            "others": "it begins once enough of them consent: securefl site plans, securefl site approve",
            "next": f"keep securefl site start {folder} running; {folder}/owner.log says how it goes",
            "folder": str(made.path),
        },
    )
    if as_json:
        typer.echo(msgspec.json.encode({"run": made.run, "plan": name, "folder": str(made.path)}).decode())


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()
