"""Where the clients of a run are: the options of ``run`` that choose an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securefl.errors import BadInput

if TYPE_CHECKING:
    from securefl.settings import Engine, Resources

Kind = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="KIND",
        help="Where the clients are: local (in this process), ray (on a cluster of your own) or nvflare (at sites).",
    ),
]
ServerFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="nvflare: the coordinator's folder, as 'server init' made it.")
]
Deadline = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=1,
        help="nvflare: for one exchange; ray: for one client in its turn. Who is later is a dropout.",
    ),
]
TrainingDeadline = Annotated[
    float, typer.Option(metavar="SECONDS", min=1, help="nvflare, ray: the same where clients train.")
]
Patience = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=1,
        help="nvflare: for enough sites to be there and take part (120). ray: for actors to start (300).",
    ),
]
Actors = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="ray: processes that hold the clients. Default: what fits.")
]
ActorCpus = Annotated[float, typer.Option(metavar="F", min=0, help="ray: CPUs of each, also a fraction.")]
ActorGpus = Annotated[float, typer.Option(metavar="F", min=0, help="ray: GPUs of each, also a fraction.")]
Address = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="ray: a cluster that runs: auto, or HOST:PORT.")
]


def chosen(
    kind: str,
    server: Path | None,
    deadline: float,
    training: float,
    patience: float | None,
    resources: Resources,
    address: str | None,
    in_turn: bool,
) -> Engine:
    """The engine that these options mean. Raises ``BadInput`` for what does not go together."""
    from securefl.engines.correspondence import Deadlines
    from securefl.settings import EMBEDDED, InTurn, Nvflare, Ray

    deadlines = Deadlines(deadline, training)
    match kind:
        case "local":
            return InTurn() if in_turn else EMBEDDED
        case _ if in_turn:
            raise BadInput("--peers is for the local engine: at sites, begin such a run with 'securefl site propose'")
        case "ray":
            return Ray(resources, address, deadlines, patience or Ray().patience)
        case "nvflare" if server is not None:
            absolute = str(server.absolute())
            return Nvflare(absolute, deadlines, patience or Nvflare(absolute).patience)
        case "nvflare":
            raise BadInput("--engine nvflare: name the coordinator's folder with --server, as 'server init' made it")
    raise BadInput(f"--engine {kind!r}: it is local, ray or nvflare")
