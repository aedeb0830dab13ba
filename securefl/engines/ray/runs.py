"""A run whose clients are in actors: what each keeps lies in the run's folder and beside its ledger, as in the embedded
engine.

Stores and ledgers are SQLite files. On a cluster of several machines both folders have to lie on a file system that all
of them share, and that keeps SQLite's locks; so has the folder that the command was started in, with the job's code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from securefl import run_clients
from securefl.client import Client
from securefl.engines.ray import cluster
from securefl.engines.ray.actors import Actors
from securefl.errors import BadInput
from securefl.job import Job
from securefl.progress import Tell, nobody
from securefl.run_folder import JOB, private_folder
from securefl.settings import Ray

if TYPE_CHECKING:
    from securefl.data import Dataset
    from securefl.job.federation import Federation


@dataclass(frozen=True)
class Setting:
    """What the job's code gives to the coordinator; records are loaded where the clients are."""

    federation: Federation
    test: Dataset | None
    engine: Ray

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Actors:
        if begun:
            run_clients.require_ledgers(job, folder)
        elif job.budget is not None:
            private_folder(
                job.ledger_folder(folder)
            )  # so that whoever does not see it there knows that it is not shared
        at = folder.absolute()
        recipe = Recipe(job, at, Path.cwd(), "cuda" if self.engine.resources.gpus else "cpu")
        return Actors(self.federation.clients, recipe, self.engine, faults=job.silences, folder=at, tell=tell)


def load(job: Job, engine: Ray) -> Setting:
    """Raises ``MissingExtra`` where Ray is not installed."""
    cluster.require()
    federation = job.federation()
    return Setting(federation, federation.test() if federation.test else None, engine)


@dataclass(frozen=True)
class Recipe:
    """Makes a run's clients in an actor. ``folder`` is the run's, ``here`` the one that the command was started in."""

    job: Job
    folder: Path
    here: Path
    device: str

    def __call__(self, names: Sequence[str]) -> list[Client]:
        """Raises ``BadInput`` on a machine that does not see the folders, or no GPU where one was asked for."""
        ledgers = self.job.ledger_folder(self.folder)
        for path in (self.here, self.folder / JOB, *(() if self.job.budget is None else (ledgers,))):
            if not path.exists():
                raise BadInput(
                    f"{path} is not there on machine {os.uname().nodename}: let all machines share its folder"
                )
        os.chdir(self.here)  # where the job's own code is found
        self._require_device()
        return run_clients.clients(self.job, self.folder, run_clients.load(self.job, names), self.device)

    def _require_device(self) -> None:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("torch finds no GPU in an actor that has one: install torch for CUDA, or ask for no GPUs")
