"""Which engine a run is on: kept in its folder, so that it is resumed where it was begun."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from securefl import run_folder
from securefl.engines.correspondence import Deadlines
from securefl.errors import BadInput, NotARun
from securefl.job import Job
from securefl.parties import Setting
from securefl.peers.faults import Death
from securefl.run_folder import ENGINE


class Embedded(Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="local"):
    """All clients in the coordinator's process."""


class Nvflare(Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="nvflare"):
    """Sites over NVIDIA FLARE. ``server``: the folder that ``securefl server init`` made, an absolute path;
    ``patience``: seconds that a round waits until enough sites are there.
    """

    server: str
    deadlines: Deadlines = Deadlines()
    patience: float = 120.0


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a Ray cluster: so many ``actors`` (None: as many as there is room for), each with so many CPUs and GPUs, which
    may be fractions. What they are counts when actors are placed; Ray enforces none of it.
    """

    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise BadInput(f"{self.actors} actors: at least 1, or leave it out")
        if not (0 <= self.cpus < math.inf and 0 <= self.gpus < math.inf):
            raise BadInput(f"{self.cpus} CPUs and {self.gpus} GPUs for an actor: finite numbers, not below 0")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise BadInput(f"{self.gpus} GPUs for an actor: a fraction of one GPU, or whole ones")


class Ray(Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="ray"):
    """Actors on a Ray cluster: the one at ``address`` ("auto", HOST:PORT or ray://HOST:PORT), or one that is started on
    this machine for the run.

    ``deadlines`` are for one client, whose actor has others that come after it. ``patience``: seconds that starting
    actors may take, a question to all clients, and waiting until enough of them are there.
    """

    resources: Resources = Resources()
    address: str | None = None
    deadlines: Deadlines = Deadlines()
    patience: float = 300.0


class InTurn(Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="peers"):
    """All clients in one process, each the server in its turn. ``deaths`` of whoever acts are made on purpose."""

    deaths: tuple[Death, ...] = ()


class InTurnApart(Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="peers-apart"):
    """Clients at sites, each the server in its turn, over NVIDIA FLARE; this is the folder of one of them."""

    deadlines: Deadlines = Deadlines()


Engine = Embedded | Nvflare | Ray | InTurn | InTurnApart
EMBEDDED: Final = Embedded()


def apart(engine: Engine) -> bool:
    """Whether clients are at sites of their own, whose owners decide what is spent, whatever a job file says."""
    return isinstance(engine, Nvflare | InTurnApart)


def in_turn(engine: Engine) -> bool:
    """Whether there is no server: its clients act as one in turn."""
    return isinstance(engine, InTurn | InTurnApart)


def write(engine: Engine, folder: Path) -> None:
    run_folder.write(folder / ENGINE, msgspec.json.encode(engine))


def read(folder: Path) -> Engine:
    """Raises ``NotARun`` for a file that is damaged. Runs without one are of the embedded engine."""
    try:
        found: Engine = msgspec.json.decode((folder / ENGINE).read_bytes(), type=Engine)
        return found
    except FileNotFoundError:
        return EMBEDDED
    except OSError as error:
        raise NotARun(
            f"{folder / ENGINE} cannot be read ({error.strerror}): check what it is and who may read it"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotARun(f"{folder / ENGINE} is damaged ({error}): restore it from a backup") from error


def of(engine: Engine, job: Job) -> Setting:
    """What the job's code gives on that engine. Raises ``MissingExtra`` where the engine is not installed."""
    match engine:
        case Embedded():
            from securefl import run_clients

            return run_clients.load(job)
        case Nvflare():
            from securefl.engines.nvflare import sites

            return sites.load(job, engine)
        case Ray():
            from securefl.engines.ray import runs

            return runs.load(job, engine)
        case InTurn():
            from securefl.peers import run

            return run.load(job, engine)
        case InTurnApart():
            raise BadInput("the sites of this run go on with it by themselves: securefl site start, at each of them")
