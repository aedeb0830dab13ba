"""Clients in actors of a Ray cluster, a shard of them in each: for simulation beyond one process or one machine.

One trust domain: whoever runs the cluster reads all that is in it, records and keys included. What is simulated keeps
to the protocol, and hides nothing from the cluster's owner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from protocols.base import Exchange, Messages
from securefl.engines.local import Corruption, Silence
from securefl.engines.ray.cluster import Cluster
from securefl.engines.ray.crew import Crew, Making
from securefl.engines.ray.exchange import Replies
from securefl.engines.ray.shard import Recipe, Shard
from securefl.errors import BadInput
from securefl.global_state import Measured
from securefl.parties import Carried, Held
from securefl.plan import Plan
from securefl.progress import Tell, nobody
from securefl.server import Server
from securefl.settings import Ray

if TYPE_CHECKING:
    from securefl.data import Dataset

T = TypeVar("T")

_LOOK: Final = 0.2  # seconds between looks at who is there


class Actors:
    """The clients of ``names``, which ``recipe`` makes in actors, and makes again where one is lost: whoever's store is
    a file goes on from there as after a crash; others come back with new keys, and take no part any more.

    Whoever is late in a round is left out until it has done what it was asked. ``faults`` are made on purpose.
    ``folder``: where clients write models down. ``tell`` hears who is lost. ``close`` it when all is done.

    Raises ``BadInput`` where the cluster has no room, and what the recipe raises.
    """

    def __init__(
        self,
        names: Sequence[str],
        recipe: Recipe,
        engine: Ray = Ray(),  # noqa: B008
        *,
        faults: Sequence[Silence | Corruption] = (),
        folder: Path | None = None,
        tell: Tell = nobody,
    ) -> None:
        if not names or len(set(names)) != len(names):
            raise BadInput("no client, or two of the same name: every client needs its own")
        self._engine = engine
        self._cluster = Cluster(engine.address)
        making = Making(recipe, tuple(faults), folder)
        self._crew = Crew(self._cluster, making, engine.resources, engine.patience, tell)
        try:
            self._crew.begin(names)
        except BaseException:
            self.close()
            raise
        self._places = {name: actor for actor in self._crew.actors for name in actor.names}

    @property
    def roster(self) -> Mapping[str, bytes]:
        return self._crew.roster

    def enrol(self, server: Server) -> None:
        """Have all clients pin the roster of their keys, and the plan.

        Raises ``BudgetExceeded`` where all rounds of a run that has not begun do not fit into what is left of a budget.
        """
        plan = server.enrol(self.roster)
        self._crew.pin(plan, 0 if server.begun else plan.participations)

    def exchange(self, round: int) -> Exchange:
        """Lost actors are started again before it."""
        self._crew.mend()
        return partial(self._replies, round)

    def _replies(self, round: int, requests: Messages) -> Replies:
        return Replies(self._cluster, self._engine.deadlines, round, requests, self._places)

    def present(self, plan: Plan) -> frozenset[str]:
        """Whose actors are there and have nothing left to do. While others may come, waits for the fewest that a round
        needs, as long as the engine's patience.
        """
        until = time.monotonic() + self._engine.patience
        while True:
            self._crew.mend()
            there = self._crew.there()
            if len(there) >= plan.minimum or self._crew.whole() or time.monotonic() > until:
                return there
            time.sleep(_LOOK)

    def epsilon(self, server: Server) -> dict[str, float]:
        return _merged(self._crew.ask(Shard.epsilon))

    def measured(self, run: str, round: int) -> Measured | None:
        return next((found for found in self._crew.ask(Shard.measured, run, round) if found is not None), None)

    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        self._crew.ask(Shard.refuse, plan, lost)

    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        return _merged(self._crew.ask(Shard.carried_over, run, plan))

    def models(self, run: str, round: int) -> Sequence[Held]:
        """All write theirs into their own folders; one of them is returned, for they are equal."""
        return [held for found in self._crew.ask(Shard.models, run, round) for held in found][:1]

    def records(self) -> Sequence[Dataset]:
        """None: they stay in the actors."""
        return ()

    def close(self) -> None:
        """End the actors, and the cluster where it was started for them."""
        self._crew.end()
        self._cluster.close()


def _merged(found: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {name: value for one in found for name, value in one.items()}
