"""A run's clients, as whoever coordinates it reaches them, and what can be seen of them from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.base import Exchange
from securefl.global_state import Measured
from securefl.plan import Plan
from securefl.progress import Tell, nobody

if TYPE_CHECKING:
    from securefl.data import Dataset
    from securefl.job import Job
    from securefl.job.federation import Federation
    from securefl.server import Server


class Carried(NamedTuple):
    """What a data set was charged for already: epsilon, by so many charges of earlier runs; and what still fits."""

    epsilon: float
    charges: int
    rounds_left: int


class Held(NamedTuple):
    """The model as a client holds it: where it is, as a file, and its flat parameters."""

    path: Path
    file: bytes
    parameters: NDArray[np.float32]


class Parties(Protocol):
    """An engine's clients. What cannot be seen from where the run is coordinated is empty or None."""

    @property
    def roster(self) -> Mapping[str, bytes]:
        """Their public keys (Ed25519), by name."""
        ...

    def enrol(self, server: Server) -> None:
        """Give the server its roster and see to it that owners hear of the plan, where they can before a round.

        Raises ``Refused`` or ``BudgetExceeded`` where an owner says at once that it takes no part.
        """
        ...

    def exchange(self, round: int) -> Exchange:
        """How messages of a round reach them, and come back."""
        ...

    def present(self, plan: Plan) -> frozenset[str]:
        """Who can be asked now: others are left out of the next attempt. Waits for the fewest that a round needs."""
        ...

    def epsilon(self, server: Server) -> dict[str, float]:
        """What each has spent, at its budget's delta, as far as it is known here."""
        ...

    def measured(self, run: str, round: int) -> Measured | None:
        """What the round measured on held-out records, from a client that can read it."""
        ...

    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        """Raise the error, with its figures, of the first among those ``lost`` whose budget refused."""
        ...

    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        """By name, what earlier runs left of each budget."""
        ...

    def models(self, run: str, round: int) -> Sequence[Held]:
        """The model of that round from clients that hold it, written down for each."""
        ...

    def records(self) -> Sequence[Dataset]:
        """All records, where one process holds them: only a trial can compare with central training."""
        ...

    def close(self) -> None:
        """Let go of what carries messages."""
        ...


class Unseen:
    """What is seen of clients whose owners run them elsewhere: nothing, until they sign it at the end."""

    def epsilon(self, server: Server) -> dict[str, float]:
        """What owners have spent is in their ledgers."""
        return {}

    def measured(self, run: str, round: int) -> Measured | None:
        return None

    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        """Owners keep their figures to themselves."""

    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        return {}

    def models(self, run: str, round: int) -> Sequence[Held]:
        """Where only they can read it, sites write the model into their own folders."""
        return ()

    def records(self) -> Sequence[Dataset]:
        return ()


class Setting(Protocol):
    """What a job's code gives to whoever coordinates it, and how its clients are found."""

    @property
    def federation(self) -> Federation: ...

    @property
    def test(self) -> Dataset | None:
        """The public test set."""
        ...

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Parties:
        """The clients of a run in this folder; ``tell`` hears how they are reached.

        Raises ``LedgerError`` where a run that has ``begun`` lacks a ledger.
        """
        ...
