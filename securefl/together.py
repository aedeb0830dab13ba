"""All clients in the coordinator's own process: for trials, tests and simulation. Here everything can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from protocols.base import Exchange
from securefl.client import Client
from securefl.data import Dataset
from securefl.engines.local import Corruption, LocalEngine, Silence
from securefl.errors import BadInput
from securefl.global_state import Measured
from securefl.joint import Joint
from securefl.parties import Carried, Held
from securefl.plan import Plan
from securefl.releases import releases
from securefl.run_folder import MODEL, write
from securefl.server import Server


class Together:
    """``faults`` are made on purpose, to see what the others do then. ``folder``: where clients write models down.
    ``records``: everybody's, to compare with.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        faults: Sequence[Silence | Corruption] = (),
        folder: Path | None = None,
        records: Sequence[Dataset] = (),
    ) -> None:
        self.clients = tuple(clients)
        self._folder = folder
        self._records = tuple(records)
        by_name = {client.name: client for client in clients}
        self._engine = LocalEngine(by_name, faults, Joint(by_name).ahead)

    @property
    def roster(self) -> dict[str, bytes]:
        return {client.name: client.public_key for client in self.clients}

    def enrol(self, server: Server) -> None:
        """Make the roster of the clients' own keys and have everyone pin it.

        Raises ``BudgetExceeded`` where all rounds of a run that has not begun do not fit into what is left of a budget.
        """
        roster = self.roster
        if len(roster) != len(self.clients):
            raise BadInput("two clients have the same name: every client needs its own")
        plan = server.enrol(roster)
        for client in self.clients:
            client.pin(roster, plan, 0 if server.begun else plan.participations)

    def exchange(self, round: int) -> Exchange:
        return self._engine.exchange(round)

    def present(self, plan: Plan) -> frozenset[str]:
        return frozenset(plan.clients)

    def epsilon(self, server: Server) -> dict[str, float]:
        found = {client.name: client.epsilon() for client in self.clients}
        return {name: value for name, value in found.items() if value is not None}

    def measured(self, run: str, round: int) -> Measured | None:
        current = (client for client in self.clients if client.model_round(run) == round)
        return next((client.held(run).measured for client in current), None)

    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        for client in self.clients:
            if lost.get(client.name) == "refused: budget":
                client.account.ledger.check(releases(plan))

    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        found = {}
        for client in self.clients:
            ledger = client.account.ledger
            earlier = [entry for entry in ledger.entries() if entry.run != run]
            if ledger.budget is not None and earlier:
                found[client.name] = Carried(ledger.epsilon(), len(earlier), ledger.affordable(releases(plan)))
        return found

    def models(self, run: str, round: int) -> Sequence[Held]:
        """All write theirs into their own folders; one of them is returned, for they are equal."""
        found: list[Held] = []
        for client in self.clients:
            file = client.held(run).file if client.model_round(run) == round else None
            parameters = client.model(run)
            if self._folder is None or file is None or parameters is None:
                continue
            path = self._folder / "clients" / client.name / MODEL
            write(path, file)
            found.append(Held(path, file, parameters))
        return found[:1]

    def records(self) -> Sequence[Dataset]:
        return self._records

    def close(self) -> None:
        pass
