"""The actors of a run: started, asked all at once, and started again where they are lost."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from securefl.engines.local import Corruption, Silence
from securefl.engines.ray.cluster import Call, Cluster, Lost, Process
from securefl.engines.ray.shard import Failed, Recipe, Shard, raised
from securefl.errors import BadInput
from securefl.plan import Plan
from securefl.progress import Tell
from securefl.settings import Resources

T = TypeVar("T")
P = ParamSpec("P")
Keys = dict[str, bytes]

_GREETING: Final = 5.0  # seconds in which an actor that has nothing to do says so


@dataclass(eq=False)
class Actor:
    """Where the clients of these ``names`` are. ``process``: None where it is lost; ``there``: those of its clients
    that can take part, None until that is known; ``unfinished``: what it still does though nobody waits for it.
    """

    names: tuple[str, ...]
    process: Process[Shard] | None = None
    there: frozenset[str] | None = None
    unfinished: Call[object] | None = None

    def end(self, cluster: Cluster) -> None:
        """Also one that is only out of reach: of two processes with the same clients neither could go on."""
        if self.process is not None:
            cluster.end(self.process)
        self.process = self.there = self.unfinished = None


@dataclass(frozen=True)
class Making:
    """How an actor's clients are made: by ``recipe``, with ``faults`` made on purpose; ``folder`` is where they write
    models down.
    """

    recipe: Recipe
    faults: tuple[Silence | Corruption, ...]
    folder: Path | None


@dataclass
class Crew:
    """``patience``: seconds that starting actors, or one question to all of them, may take. ``tell`` hears who is lost
    and who does not come back.
    """

    cluster: Cluster
    making: Making
    resources: Resources
    patience: float
    tell: Tell
    actors: list[Actor] = field(default_factory=list)
    roster: Mapping[str, bytes] = field(default_factory=dict)
    plan: Plan | None = None

    def begin(self, names: Sequence[str]) -> None:
        """Start the actors. Raises ``BadInput`` where there is no room for them, and what a recipe raises."""
        count = how_many(self.resources, self.cluster, len(names))
        self.actors = [Actor(tuple(names[place::count])) for place in range(count)]
        opened = {actor: raised(keys) for actor, keys in self._open(self.actors).items()}
        if any(actor.process is None for actor in self.actors):
            raise BadInput(
                "an actor ended while its clients were made: the code that makes them ends the process, or the machine "
                "has too little memory for all of them"
            )
        if len(opened) < count:
            raise BadInput(
                f"{len(opened)} of {count} actors were started within {self.patience:.0f} s: ask for fewer of them, or "
                "for less for each, or make room on the cluster"
            )
        for actor in opened:
            actor.there = frozenset(actor.names)
        self.roster = {name: keys[name] for name in names for keys in opened.values() if name in keys}

    def pin(self, plan: Plan, rounds: int) -> None:
        """Have all clients accept the roster and the plan, now and when they come back."""
        self.plan = plan
        self.ask(Shard.pin, tuple(self.roster), self.roster, plan, rounds)

    def ask(self, work: Callable[Concatenate[Shard, P], T | Failed], *given: P.args, **named: P.kwargs) -> list[T]:
        """What all actors say that have nothing else to do, one call to each. Raises what one of them failed with."""
        return [raised(answer) for answer in self._asked(self.patience, work, *given, **named).values()]

    def idle(self) -> list[Actor]:
        """Actors that are not known to be lost, and have done all that they were asked."""
        for actor in self.actors:
            if actor.unfinished is not None and self.cluster.ready([actor.unfinished], 0.0) is not None:
                actor.unfinished = None
        return [actor for actor in self.actors if actor.process is not None and actor.unfinished is None]

    def there(self) -> frozenset[str]:
        """Clients that can take part now."""
        return frozenset(name for actor in self.idle() for name in actor.there or ())

    def whole(self) -> bool:
        """Whether nobody else can be expected."""
        return sum(actor.there is not None for actor in self.idle()) == len(self.actors)

    def mend(self) -> None:
        """Find out who is lost, start those again, and have their clients pin what the others have pinned."""
        up: dict[Actor, Keys | Failed] = {**self._asked(_GREETING, Shard.keys)}
        if lost := [actor for actor in self.actors if actor.process is None]:
            self.tell(f"{len(lost)} actors were lost: {_clients(lost)} are started again")
            up |= self._open(lost)
        for actor, keys in up.items():
            if actor.there is None:
                self._take_back(actor, keys)

    def end(self) -> None:
        for actor in self.actors:
            actor.end(self.cluster)

    def _open(self, actors: Iterable[Actor]) -> dict[Actor, Keys | Failed]:
        """New processes, with the clients: their keys, or what a recipe failed with, of those that came up in time."""
        making, calls = self.making, {}
        for actor in actors:
            actor.process = self.cluster.process(Shard, self.resources)
            opening = actor.process.ask(Shard.open, making.recipe, actor.names, making.faults, making.folder)
            calls[opening] = actor
        return self._gathered(calls, self.patience)

    def _take_back(self, actor: Actor, keys: Keys | Failed) -> None:
        """Have those who come back with their keys pin the plan. What fails now is tried again the next time."""
        if isinstance(keys, Failed) or not keys:
            self.tell(
                f"{_clients([actor])}: {keys.message if isinstance(keys, Failed) else 'they were not made again'}"
            )
            actor.end(self.cluster)
            return
        same = frozenset(name for name, key in keys.items() if self.roster[name] == key)
        if self.plan is not None and actor.process is not None:
            pinning = actor.process.ask(Shard.pin, tuple(same), self.roster, self.plan, 0)
            answers = self._gathered({pinning: actor}, self.patience)
            if isinstance(answer := answers.get(actor), Failed):
                self.tell(f"{_clients([actor])}: {answer.message}")
            if isinstance(answer, Failed) or actor not in answers:
                return
        actor.there = same
        if len(same) < len(actor.names):
            self.tell(f"{_clients([actor])} have other keys than before and take no part: keep their stores in files")

    def _asked(
        self, seconds: float, work: Callable[Concatenate[Shard, P], T], *given: P.args, **named: P.kwargs
    ) -> dict[Actor, T]:
        asked = [(actor.process, actor) for actor in self.idle() if actor.process is not None]
        return self._gathered({process.ask(work, *given, **named): actor for process, actor in asked}, seconds)

    def _gathered(self, calls: Mapping[Call[T], Actor], seconds: float) -> dict[Actor, T]:
        """Who answered within so many seconds, and what. Whoever did not is lost, or has that left to do."""
        until, left = time.monotonic() + seconds, dict(calls)
        found: dict[Actor, T] = {}
        while (call := self.cluster.ready(left, until - time.monotonic())) is not None:
            actor = left.pop(call)
            try:
                found[actor] = self.cluster.answer(call)
            except Lost:
                actor.end(self.cluster)
        for call, actor in left.items():
            actor.unfinished = call
        return found


def how_many(resources: Resources, cluster: Cluster, clients: int) -> int:
    """Actors to start: as many as were asked for or as there is room for, and none without a client.

    Raises ``BadInput`` where they would not fit on a cluster that cannot grow.
    """
    parts = ((resources.cpus, cluster.total("CPU")), (resources.gpus, cluster.total("GPU")))
    # Shares are decimal fractions that floats round: ten tenths must fit into one.
    room = min((math.floor(total / each + 1e-9) for each, total in parts if each), default=os.cpu_count() or 1)
    count = min(resources.actors or max(room, 1), clients)
    if count > room and cluster.own:
        raise BadInput(
            f"{count} actors of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs do not fit on this machine: it has "
            f"{parts[0][1]:g} and {parts[1][1]:g}; ask for fewer actors, or for less for each"
        )
    return count


def _clients(actors: Iterable[Actor]) -> str:
    names = [name for actor in actors for name in actor.names]
    return f"{names[0]} and {len(names) - 1} others" if len(names) > 1 else names[0]
