"""One exchange with clients in actors: each actor is asked for one client at a time, replies come as they are ready.

So at most as many replies as there are actors are held or on their way, and an actor that is late has one thing to do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from protocols.base import Messages
from securefl.engines.correspondence import Deadlines
from securefl.engines.ray.cluster import Call, Cluster, Lost
from securefl.engines.ray.crew import Actor
from securefl.engines.ray.shard import Failed, Shard, raised


@dataclass(frozen=True)
class _Turn:
    """Of one client, which has to answer until then (seconds, monotonic)."""

    actor: Actor
    name: str
    until: float


@dataclass
class Replies:
    """To ``requests``. Of an actor that is lost, or late with one client, no further client is asked.

    ``deadlines`` are for one client: others in the same actor only take their turn after it.
    """

    cluster: Cluster
    deadlines: Deadlines
    round: int
    requests: Messages
    places: Mapping[str, Actor]
    _waiting: dict[Actor, deque[str]] = field(default_factory=dict)
    _turns: dict[Call[bytes | Failed | None], _Turn] = field(default_factory=dict)
    _shared: tuple[bytes, bytes] = (b"", b"")

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for name in self.requests:
            self._waiting.setdefault(self.places[name], deque()).append(name)
        try:
            for actor in self._waiting:
                self._ask(actor)
            while self._turns:
                yield from self._next()
        finally:  # also where nobody wants the rest
            for call, turn in self._turns.items():
                turn.actor.unfinished = call

    def _next(self) -> Iterator[tuple[str, bytes]]:
        """The reply that is ready next; or nothing, once somebody is late or lost."""
        until = min(turn.until for turn in self._turns.values())
        call = self.cluster.ready(self._turns, until - time.monotonic())
        if call is None:
            self._leave_late()
            return
        turn = self._turns.pop(call)
        try:
            reply = raised(self.cluster.answer(call))
        except Lost:
            turn.actor.end(self.cluster)
            return
        self._ask(turn.actor)  # so that it works while the reply is taken in
        if reply is not None:
            yield turn.name, reply

    def _leave_late(self) -> None:
        for call in [call for call, turn in self._turns.items() if turn.until <= time.monotonic()]:
            self._turns.pop(call).actor.unfinished = call

    def _ask(self, actor: Actor) -> None:
        """Ask the actor for its next client, if there is one."""
        if actor.process is None or not self._waiting[actor]:
            return
        name = self._waiting[actor].popleft()
        request = self.requests[name]
        call = actor.process.ask(Shard.answer, self.round, name, self._laid_out(request))
        self._turns[call] = _Turn(actor, name, time.monotonic() + self.deadlines.of(request))

    def _laid_out(self, request: bytes) -> bytes:
        """Clients that are sent the very same bytes come one after the other: those are laid out once."""
        if request is not self._shared[0]:
            self._shared = request, self.cluster.shared(request)
        return self._shared[1]
