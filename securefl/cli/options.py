"""What the commands have in common: options, where words go, and how a person stops them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securefl.errors import SecureFLError

if TYPE_CHECKING:
    from rich.console import Console


def _named(path: Path | None) -> Path | None:
    """Refuse, before anything is done, a path that reports and messages could not name."""
    from securefl.run_folder import require_name

    if path is not None:
        require_name(path)
    return path


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", help="A new folder for the run. Default: runs/NAME-PROTECTION-TIME.", callback=_named
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run, as 'run' and 'demo' print it.", callback=_named)
]
JobFile = Annotated[
    Path, typer.Argument(metavar="JOB.toml", help="What to train, on what, how protected.", callback=_named)
]
Ledger = Annotated[
    Path, typer.Argument(metavar="LEDGER", help="A client's ledger: LEDGERS/DATA/CLIENT.sqlite.", callback=_named)
]
Ledgers = Annotated[
    Path | None,
    typer.Option("--ledgers", metavar="FOLDER", help="Where the clients' ledgers are, if elsewhere.", callback=_named),
]
ServerHome = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder, as 'server init' made it.", callback=_named)
]
SiteHome = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The site's folder, as 'site init' made it.", callback=_named)
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT",
        help="Serve figures for Prometheus at this port of this machine, or at another address: to whoever reaches it.",
    ),
]
Peers = Annotated[
    bool, typer.Option("--peers", help="Without a server: the clients act as it in turn, and go on where one dies.")
]
SentFile = Annotated[
    Path, typer.Argument(metavar="REQUEST", help="The file that a site's administrator sent.", callback=_named)
]
Days = Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="For how many days certificates are valid.")]
NewFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, private to you.", callback=_named)]


class Interrupted(SecureFLError):
    """The person stopped the run; it is charged for what was started, and can go on."""

    exit_code = 130


def console_for(as_json: bool) -> Console:
    """Words go to stdout, or to stderr where stdout belongs to the JSON object."""
    from rich.console import Console

    return Console(stderr=as_json, highlight=False)
