"""The embedded engine: the clients of a run, each with what it keeps for itself and for longer than the run.

``clients/NAME/`` in the run's folder holds what is of this run; beside the ledger of its data lie identity and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securefl.account import load_identity
from securefl.client import Client
from securefl.data import Dataset
from securefl.errors import LedgerError
from securefl.job import Job
from securefl.job.federation import Federation
from securefl.policy import Policy
from securefl.privacy.fingerprint import refuse_twin
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.ledger.file import is_ledger, read
from securefl.progress import Tell, nobody
from securefl.run_folder import HISTORY, STORE, private_folder
from securefl.store import Store
from securefl.together import Together


@dataclass(frozen=True)
class Material:
    """What a job's code gave: its federation, each client's records, the public test set."""

    federation: Federation
    data: dict[str, Dataset]
    held_out: dict[str, Dataset]
    test: Dataset | None

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Together:
        """All clients of the job, in this process.

        Raises ``LedgerError`` for a ledger that is another's, is missing though the run has ``begun``, or is a second
        of these records.
        """
        if begun:
            require_ledgers(job, folder)
        return Together(clients(job, folder, self), job.silences, folder, list(self.data.values()))


def load(job: Job, names: Sequence[str] | None = None) -> Material:
    """Everything that the job's own code gives: of all clients, or of these."""
    federation = job.federation()
    test = federation.test() if federation.test else None
    names = federation.clients if names is None else names
    held_out: dict[str, Dataset] = {}
    if (job.metrics is not None or job.survey is not None) and federation.held_out is not None:
        held_out = {name: federation.held_out(name) for name in names}
    return Material(federation, {name: federation.load(name) for name in names}, held_out, test)


def clients(job: Job, folder: Path, material: Material, device: str = "cpu") -> list[Client]:
    """Those whose records the material has, in this process; ``device`` is where torch computes.

    Raises ``LedgerError`` for a ledger that is another's, or a second of these records.
    """
    return [_client(job, folder, material, name, device) for name in material.data]


def require_ledgers(job: Job, folder: Path) -> None:
    """Raise ``LedgerError`` if a run that has begun lacks a client's ledger: a new one would forget what was spent."""
    if job.budget is None or not (folder / HISTORY).exists():
        return
    for name in job.clients:
        path = job.ledger_folder(folder) / f"{name}.sqlite"
        if not path.exists() or not _keep(path).exists():
            raise LedgerError(
                f"the ledger of {name} is not at {path}, or its identity not beside it, though the run has begun: "
                "restore both from where they were moved, or from a backup"
            )


def _keep(path: Path) -> Path:
    """Where identity and memory lie, beside a ledger."""
    return path.with_name(f"{path.stem}.keep.sqlite")


def _client(job: Job, folder: Path, material: Material, name: str, device: str) -> Client:
    private = folder / "clients" / name
    private_folder(private)
    store = Store(private / STORE)
    path = job.ledger_folder(folder) / f"{name}.sqlite"
    keep, ledger = (store, None) if job.budget is None else _kept(job, path, material.federation.data_name)
    client = Client(
        name,
        material.data[name],
        material.federation.model,
        budget=job.budget,
        policy=Policy(exact_metrics=job.metrics is not None and job.metrics.exact),
        held_out=material.held_out.get(name),
        test=material.test,
        ledger=ledger,
        store=store,
        keep=keep,
        seed=job.simulation.seed,
        device=device,
    )
    if ledger is not None:
        refuse_twin(path, client.account.fingerprint)
    return client


def _kept(job: Job, path: Path, data: str) -> tuple[Store, Ledger]:
    """What outlives the run: the client's identity and memory, and the ledger of its data, of its first unit."""
    private_folder(path.parent)
    name = path.stem
    keep = Store(_keep(path))
    unit = read(path).header.unit if is_ledger(path) else job.privacy.unit
    return keep, Ledger(path, load_identity(keep), Owner(name, data, unit), job.budget)
