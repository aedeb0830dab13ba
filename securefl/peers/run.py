"""A run in one folder whose clients act in turn: ``peers/NAME/`` is what each keeps as a server, and its own record.

The folder itself has the record that all of them settled on, and at the end the report, made by whoever acted last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import structs

from protocols.aggregation.session import Roster
from protocols.base import Exchange
from securefl import run_clients
from securefl.client import Client
from securefl.engines.local import Corruption, Silence
from securefl.errors import BadInput, BadJob, NotARun
from securefl.job import Job, checks
from securefl.peers.baton import Baton
from securefl.peers.circle import Circle
from securefl.peers.faults import Death, Place
from securefl.peers.journal import Journal
from securefl.peers.local import AllPeers
from securefl.peers.memory import Memory
from securefl.peers.peer import Overdue, Peer
from securefl.peers.words import visibility
from securefl.progress import Tell, Watcher, nobody
from securefl.records import RoundRecord, Summary
from securefl.run import Run
from securefl.run_clients import Material
from securefl.run_folder import HISTORY, STORE, private_folder
from securefl.server import Server
from securefl.settings import InTurn
from securefl.store import Store
from securefl.together import Together

if TYPE_CHECKING:
    from securefl.data import Dataset
    from securefl.job.federation import Federation

_DEATH: Final = re.compile(r"acting@(?P<exchange>[0-5])(:(?P<round>[1-9][0-9]{0,5}))?")
_EXCHANGES: Final[tuple[Place, ...]] = ("keys", "shares", "masked-input", "consistency", "unmask", "sum")


def check_job(job: Job) -> None:
    """Raises ``BadJob`` for a job whose protection promises nothing about an acting server, which is a client."""
    if not job.masked:
        problem = f"{job.protection.kind!r} hides nothing from a server that is one of the clients"
        raise BadJob("protection.kind", problem, 'Write kind = "secagg" or "ckks", or leave --peers out')
    if job.protection.colluders < 1:
        problem = "0, and whoever acts as the server is one of the clients"
        raise BadJob("protection.colluders", problem, "Write colluders = 1 or more, or leave --peers out")
    if job.cohort.groups > 1:
        raise BadJob("cohort.groups", "whoever acts as the server forms one sum", "Leave the key or --peers out")
    for key, section in (("survey", job.survey), ("stopping", job.stopping)):
        if section is not None:
            raise BadJob(key, "a run without a server ends with its last round", "Leave the section or --peers out")


def demonstration(job: Job) -> Job:
    """The same job with one colluder in its plan, who may be the peer that acts. Raises ``BadJob`` where it cannot."""
    shield = job.protection
    colluders = max(1, shield.colluders)
    minimum = max(job.minimum, 3 * colluders + 1)
    changed = structs.replace(job, protection=structs.replace(shield, colluders=colluders, minimum=minimum))
    check_job(changed)
    checks.check(changed)
    return changed


def deaths(job: Job, named: Sequence[str]) -> tuple[Death, ...]:
    """What ``acting@EXCHANGE[:ROUND]`` means; without a round, the second or the last. Raises ``BadInput``."""
    return tuple(_death(job, text) for text in named)


def _death(job: Job, text: str) -> Death:
    found = _DEATH.fullmatch(text)
    if found is None or int(found["round"] or 1) > job.rounds:
        raise BadInput(f"{text!r} is not acting@EXCHANGE[:ROUND], of 0 to 5 and the job's {job.rounds} rounds")
    return Death(_EXCHANGES[int(found["exchange"])], int(found["round"] or min(2, job.rounds)))


def load(job: Job, engine: InTurn) -> Setting:
    """Raises ``BadJob`` for a job that cannot be run point to point."""
    check_job(job)
    return Setting(run_clients.load(job), engine)


@dataclass(frozen=True)
class Setting:
    """What the job's code gave."""

    material: Material
    engine: InTurn

    @property
    def federation(self) -> Federation:
        return self.material.federation

    @property
    def test(self) -> Dataset | None:
        return self.material.test

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Peers:
        """All clients of the job, in this process. Raises ``LedgerError`` as in the embedded engine."""
        return Peers(job, folder, begun, self)


class Peers(Together):
    """The clients of a run; behind them, once they are enrolled, the peers that they are of."""

    def __init__(self, job: Job, folder: Path, begun: bool, setting: Setting) -> None:
        together = setting.material.parties(job, folder, begun)
        super().__init__(together.clients, job.silences, folder, together.records())
        self.watcher = Watcher()
        self._job, self._run_folder, self._begun = job, folder, begun
        self._setting = setting
        self._everyone: AllPeers | None = None

    @property
    def everyone(self) -> AllPeers:
        if self._everyone is None:
            raise BadInput("the peers have no roster yet: enrol them first")
        return self._everyone

    def store(self, name: str) -> Store:
        """What a peer keeps as a server."""
        folder = self._run_folder / "peers" / name
        private_folder(folder)
        return Store(folder / STORE)

    def server(self, store: Store, run: str | None = None) -> Server:
        """The one that a peer is in its turn. ``run`` names a new run."""
        return Server.of_job(self._job, self._setting.federation.model, self._setting.test, store, run)

    def enrol(self, server: Server) -> None:
        """Have everyone pin the roster of all keys and the plan.

        Raises ``BudgetExceeded`` where all rounds of a run that has not begun do not fit into what is left of a budget.
        """
        plan = server.enrol(self.roster)
        for client in self.clients:
            client.pin(self.roster, plan, 0 if self._begun else plan.participations)
        circle = Circle(server.run, plan, Roster(dict(self.roster)))
        known = {client.name: client for client in self.clients}

        def make(name: str, overdue: Overdue) -> tuple[Client, Peer]:
            client = known.pop(name, None) or self._again(name, circle)
            store = self.store(name)
            own = self.server(store, circle.run)
            own.enrol(self.roster)
            memory = Memory(store, circle, own.state)
            journal = Journal(self._run_folder / "peers" / name, memory.batons())
            return client, Peer(client, client.identity, own, circle, memory, overdue, journal, self.watcher.tell)

        faults: list[Silence | Corruption | Death] = [*self._job.silences, *self._setting.engine.deaths]
        self._everyone = AllPeers(self, make, faults, self.watcher)

    def exchange(self, round: int) -> Exchange:
        """From whoever acted last."""
        return self.everyone.reach(self.everyone.last)

    def _again(self, name: str, circle: Circle) -> Client:
        """A client that starts once more, with what it has on disk."""
        material = self._setting.material
        alone = replace(material, data={name: material.data[name]})
        (client,) = run_clients.clients(self._job, self._run_folder, alone)
        client.pin(circle.roster.keys, circle.plan)
        return client


class PeersRun(Run):
    """A run that any of its clients can go on with."""

    def rounds(self) -> Iterator[RoundRecord]:
        """Run what remains, one record a round. A round that was yielded survives any later crash."""
        everyone = self._peers.everyone
        settled = everyone.newest.memory.batons()
        if self.history != [baton.record for baton in settled[: len(self.history)]]:
            raise NotARun(
                f"{self.folder / HISTORY} is not what its peers settled on: restore all of it from one backup"
            )
        (self.folder / HISTORY).touch()  # from here on it has begun
        own = Journal(self.folder, settled)
        for baton in settled[len(self.history) :]:
            yield self._noted(baton)
        for baton in everyone.rounds():
            own.add(baton)
            yield self._noted(baton)

    @property
    def visibility(self) -> str:
        return visibility(self.plan.protection)

    def finish(self) -> Summary:
        """As of any run, by whoever acted last."""
        everyone = self._peers.everyone
        everyone.finish()
        self._server = everyone.peers[everyone.last].server
        return super().finish()

    def _noted(self, baton: Baton) -> RoundRecord:
        self.history.append(baton.record)
        self._watcher.completed(baton.record)
        return baton.record

    def _coordinator(self) -> Server:
        """That of the peer who acts first: it makes up the run's name."""
        self._peers.watcher = self._watcher
        return self._peers.server(self._peers.store(min(self.job.clients)))

    @property
    def _peers(self) -> Peers:
        if not isinstance(self._parties, Peers):
            raise BadInput(f"{self.folder} is not a run whose clients act in turn: resume it as it was begun")
        return self._parties
