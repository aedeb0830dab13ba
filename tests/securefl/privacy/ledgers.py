"""Ledgers for tests: one owner, one kind of round, and what someone without scruples does to a file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from protocols.primitives import Identity
from securefl.errors import LedgerError
from securefl.privacy.ledger import Entry, Ledger, Owner
from securefl.privacy.mechanism import DPSGD, Budget, NoisedSum

IDENTITY = Identity(bytes(range(32)))
STRANGER = Identity(bytes(range(1, 33)))
OWNER = Owner("hospital-1", "diagnoses")
ROUND = (DPSGD(noise_multiplier=4, sampling_rate=0.5, steps=3),)
SMALL = (DPSGD(noise_multiplier=40, sampling_rate=0.5, steps=1),)
TOGETHER = (*ROUND, NoisedSum("metrics", noise_multiplier=9, bound=2))
BUDGET = Budget(epsilon=3, delta=1e-5)
DATA = bytes(range(100, 132))


def opened(path: Path | str = ":memory:", budget: Budget | None = BUDGET, owner: Owner = OWNER) -> Ledger:
    return Ledger(path, IDENTITY, owner, budget)


def charge(ledger: Ledger, round: int, attempt: int = 1, run: str = "run") -> Entry:
    return ledger.charge(run, round, attempt, ROUND, DATA, simulated=False)


def charged(path: Path, rounds: int = 3) -> Path:
    """A closed ledger with so many charges."""
    with closing(opened(path)) as ledger:
        for number in range(1, rounds + 1):
            charge(ledger, number)
    return path


def edit(path: Path, *statements: str) -> None:
    """What someone with a database tool and no scruples does: drop the triggers, edit, put them back."""
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def refused_unchanged(path: Path, owner: Owner = OWNER, identity: Identity = IDENTITY) -> str:
    """The message with which ``path`` is refused, after checking that neither it nor its folder was touched."""
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))
    with pytest.raises(LedgerError) as refusal:
        Ledger(path, identity, owner, BUDGET)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))) == before
    return str(refusal.value)
