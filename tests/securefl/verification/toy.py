"""Small runs with real ledgers, keys and signatures: the code that their jobs name, and the jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from securefl import job as jobs
from securefl.data import Dataset
from securefl.job import Job
from securefl.job.file import Table
from securefl.run import Run

CLIENTS = ("ada", "bob", "cyd", "dan")
_HERE = "tests.securefl.verification.toy"


def load(client: str) -> Dataset:
    return _records(CLIENTS.index(client), 40)


def held_out(client: str) -> Dataset:
    return _records(10 + CLIENTS.index(client), 20)


def public() -> Dataset:
    return _records(99, 50)


def model() -> nn.Module:
    layer = nn.Linear(6, 2)
    nn.init.zeros_(layer.weight)
    return layer


def _records(seed: int, count: int) -> Dataset:
    features = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return Dataset(features, (features[:, 0] > 0).astype(np.int64))


def job(kind: str = "secagg", rounds: int = 2, **sections: Table) -> Job:
    """A job of two rounds; ``sections`` are put over what is here."""
    tables: dict[str, Table] = {
        "job": {"name": "toy", "rounds": rounds},
        "data": {
            "name": "toy",
            "loader": f"{_HERE}:load",
            "test": f"{_HERE}:public",
            "held_out": f"{_HERE}:held_out",
            "clients": list(CLIENTS),
            "sizes": dict.fromkeys(CLIENTS, 40),
            "disjoint": True,
        },
        "model": {"factory": f"{_HERE}:model"},
        "training": {"learning_rate": 0.5, "sampling_rate": 1.0, "steps": 1},
        "privacy": {"noise_multiplier": 4.0, "epsilon": 9.0, "delta": 1e-5, "ledger": "ledgers"},
        "protection": {"kind": kind},
    }
    for name, section in sections.items():
        tables[name] = tables.get(name, {}) | section
    return jobs.checked(tables)


def finished(chosen: Job, folder: Path) -> Path:
    """The folder of the job's run, from its first round to its report."""
    run = Run.create(chosen, folder)
    list(run.rounds())
    run.finish()
    return folder
