"""A small circle of peers for tests: the toy federation of five, each with a server of its own.

What outlives a process is in stores in memory, so that a peer that died can be started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocols.aggregation.messages import Refusal
from protocols.aggregation.session import Roster
from protocols.wire import kind
from securefl import CKKS, Client, Ledger, LocalOptimizer, SecAgg, Server, Store
from securefl.account import load_identity
from securefl.engines.local import Corruption, Silence
from securefl.peers.circle import Circle
from securefl.peers.faults import Death
from securefl.peers.local import AllPeers
from securefl.peers.memory import Memory
from securefl.peers.peer import Overdue, Peer
from securefl.plan import PrivacyTerms
from securefl.privacy.ledger import Owner
from securefl.privacy.mechanism import Budget, Training
from securefl.progress import Watcher
from securefl.protection import Protection
from securefl.together import Together
from tests.securefl.federation import NAMES, RUN, TEST, WHOLE, model, records

SHIELDS: dict[str, Protection] = {"secagg": SecAgg(colluders=1), "ckks": CKKS(colluders=1)}


@dataclass
class Table:
    """Five peers of one run and what is on their disks. ``told``: owners' logs; ``folder``: of ledgers in files."""

    cell: str = "secagg"
    rounds: int = 2
    mechanism: Training = WHOLE
    budget: Budget | None = None
    seed: int | None = None
    shield: Protection | None = None
    run: str = RUN
    folder: Path | None = None
    faults: Sequence[Silence | Corruption | Death] = ()
    watcher: Watcher = field(default_factory=Watcher)
    told: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    disks: dict[str, tuple[Store, Store]] = field(default_factory=lambda: {name: (Store(), Store()) for name in NAMES})
    ledgers: dict[str, Ledger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.disks:
            self.open_ledger(name)
        self.start()

    def open_ledger(self, name: str) -> None:
        if self.budget is not None:
            path = ":memory:" if self.folder is None else self.folder / f"{name}.sqlite"
            identity = load_identity(self.disks[name][0])
            self.ledgers[name] = Ledger(path, identity, Owner(name, "toy", "record"), self.budget)

    def start(self) -> None:
        """All peers, as after a crash of the machine."""
        self.together = Together([self.client(name) for name in NAMES])
        self.all = AllPeers(self.together, self.made, self.faults, self.watcher)

    def client(self, name: str) -> Client:
        return Client(
            name,
            records(NAMES.index(name)),
            model,
            budget=self.budget,
            test=TEST,
            ledger=self.ledgers.get(name),
            store=self.disks[name][0],
            seed=self.seed,
        )

    def made(self, name: str, overdue: Overdue) -> tuple[Client, Peer]:
        """One peer, as it starts."""
        owner, (mine, store) = self.client(name), self.disks[name]
        own = Server(
            model,
            self.shield or SHIELDS[self.cell],
            self.mechanism,
            LocalOptimizer(0.5),
            rounds=self.rounds,
            test=TEST,
            run=self.run,
            store=store,
            privacy=PrivacyTerms(simulated=self.seed is not None),
        )
        roster = {other: load_identity(self.disks[other][0]).public for other in NAMES}
        plan = own.enrol(roster)
        owner.pin(roster, plan)
        circle = Circle(self.run, plan, Roster(roster))
        memory = Memory(store, circle, own.state)
        return owner, Peer(owner, load_identity(mine), own, circle, memory, overdue, tell=self.told[name].append)

    def models(self) -> dict[str, bytes]:
        """The final model, as each peer or its client holds it."""
        found = {}
        for name, peer in self.all.peers.items():
            owner = next(one for one in self.together.clients if one.name == name)
            sealed = owner.held(self.run).vector
            found[name] = sealed.tobytes() if sealed is not None else peer.memory.standing.state.model
        return found


def refused(reply: bytes) -> bool:
    return kind(reply) == Refusal.KIND
