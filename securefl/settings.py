"""Which engine a run is on: kept in its folder, so that it is resumed where it was begun."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from securefl import run_folder
from securefl.engines.correspondence import Deadlines
from securefl.errors import NotARun
from securefl.job import Job
from securefl.parties import Setting
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


Engine = Embedded | Nvflare
EMBEDDED: Final = Embedded()


def write(engine: Engine, folder: Path) -> None:
    run_folder.write(folder / ENGINE, msgspec.json.encode(engine))


def read(folder: Path) -> Engine:
    """Raises ``NotARun`` for a file that is damaged. Runs without one are of the embedded engine."""
    try:
        found: Engine = msgspec.json.decode((folder / ENGINE).read_bytes(), type=Engine)
        return found
    except FileNotFoundError:
        return EMBEDDED
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
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
