"""All peers in one process: each acts in its turn, and any can die at any message, to see what the others do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final

from protocols.base import Exchange, Messages
from protocols.wire import kind
from securefl.client import Client
from securefl.engines.local import STEPS, Corruption, Silence, flipped
from securefl.errors import RoundFailed
from securefl.peers import baton as batons
from securefl.peers.acting import Acting
from securefl.peers.baton import Baton
from securefl.peers.faults import Death
from securefl.peers.gathering import Overtaken
from securefl.peers.messages import LockRequest, TakeRequest, TurnRequest, VoteRequest
from securefl.peers.peer import Overdue, Peer
from securefl.progress import Watcher
from securefl.together import Together
from securefl.transcript import KINDS

_OWN: Final = {
    TurnRequest.KIND: "turn",
    VoteRequest.KIND: "vote",
    LockRequest.KIND: "lock",
    TakeRequest.KIND: "take",
}
_LATE: Final = len(
    STEPS
)  # what follows the protocol's exchanges: a client that is silent from one of those on stays so


class Died(Exception):
    """A peer that is dead calls nobody any more."""


Make = Callable[[str, Overdue], tuple[Client, Peer]]
"""A peer as it starts, or starts again: everything but what it has on disk is new."""


class AllPeers:
    """Of one run. ``together``: the clients, for what can be seen in one process."""

    def __init__(
        self,
        together: Together,
        make: Make,
        faults: Sequence[Silence | Corruption | Death] = (),
        watcher: Watcher = Watcher(),  # noqa: B008
    ) -> None:
        self._together = together
        self._make = make
        self._faults = tuple(faults)
        self._watcher = watcher
        self._dead: set[str] = set()
        self._done: set[Death] = set()
        self._given_up: set[tuple[int, int]] = set()
        self.peers: dict[str, Peer] = {}
        self._acting: dict[str, Acting] = {}
        for name in together.roster:
            self._start(name)
        self._circle = next(iter(self.peers.values())).circle
        self._now = self.round + 1
        # A turn that was given before this process began has had its time.
        self._first = 1 + max(peer.memory.next.turn for peer in self.peers.values() if peer.round == self.round)
        self.last = self.newest.name

    @property
    def round(self) -> int:
        """The last that is settled for any peer."""
        return self.newest.round

    @property
    def newest(self) -> Peer:
        """One that has it."""
        return max(self.peers.values(), key=lambda peer: peer.round)

    def rounds(self) -> Iterator[Baton]:
        """Run what remains, one settled baton a round.

        Raises ``RoundFailed`` when too few peers were left for whoever acted, or nobody who could act.
        """
        while self.round < self._circle.plan.rounds:
            self._now = self.round + 1
            yield self._settled(self._now)
            self._first = 0
            for name in sorted(self._dead):
                self._start(name)
            self._dead.clear()

    def finish(self) -> None:
        """After the last round, by whoever acted last."""
        self._now = self.round + 1
        self._acting[self.last].finish()

    def reach(self, sender: str) -> Exchange:
        """How a peer's messages get to the others, and to itself."""

        def call(requests: Messages) -> Iterator[tuple[str, bytes]]:
            for sent, name in enumerate(requests):
                request = requests[name]
                place = _place(request)
                self._die(sender, place, sent)
                reply = self._delivered(sender, name, request, place)
                if reply is not None:
                    yield name, reply

        return call

    # ---- turns

    def _settled(self, number: int) -> Baton:
        for turn in count(self._first):
            name = self._circle.acting(number, turn)
            if turn - self._first == len(self.peers):
                raise RoundFailed(f"nobody is left who could act in round {number}: resume the run once peers are back")
            if name not in self._dead:
                self.last = name
                found = self._tried(name, number, turn)
                if found is not None:
                    return found
            self._given_up.add((number, turn))
            self._watcher.tell(f"{name} is gone: {self._circle.acting(number, turn + 1)} acts in round {number}")
        raise AssertionError("turns have no end")

    def _tried(self, name: str, number: int, turn: int) -> Baton | None:
        """What is settled after a peer's turn; None where it died."""
        acting = self._acting[name]
        try:
            while self.peers[name].round < number:
                try:
                    acting.take_turn(turn)
                except Overtaken:
                    continue
        except Died:
            return None
        except RoundFailed:
            self._given_up.add((number, turn))
            self._first = turn + 1
            raise
        settled = self.peers[name].memory.settled(number)
        return None if settled is None else batons.decoded(settled.passed.baton)

    def _overdue(self, round: int, first: int, turn: int) -> bool:
        return all((round, each) in self._given_up or each < self._first for each in range(first, turn))

    def _start(self, name: str) -> None:
        client, peer = self._make(name, self._overdue)
        others = {other.name: other for other in self._together.clients}
        self._together.clients = tuple((others | {name: client})[other] for other in others)
        self.peers[name] = peer
        self._acting[name] = Acting(peer, self.reach(name), self._together, self._watcher)

    # ---- faults

    def _die(self, sender: str, place: str, sent: int) -> None:
        if sender in self._dead:
            raise Died(sender)
        for fault in self._faults:
            if isinstance(fault, Death) and (fault.place, fault.round, fault.sent) == (place, self._now, sent):
                if fault in self._done:
                    continue
                self._done.add(fault)
                self._dead.add(sender)
                raise Died(sender)

    def _delivered(self, sender: str, name: str, request: bytes, place: str) -> bytes | None:
        now = [fault for fault in self._faults if fault.round == self._now]
        step = STEPS.get(kind(request), _LATE if place in _OWN.values() and place != "turn" else -1)
        silent = any(isinstance(one, Silence) and one.client == name and one.exchange <= step for one in now)
        if name in self._dead or silent:
            return None
        reply = self.peers[name].handle(sender, request)
        garbled = any(isinstance(one, Corruption) and (one.client, one.exchange) == (name, step) for one in now)
        return flipped(reply) if garbled else reply


def _place(request: bytes) -> str:
    number = kind(request)
    return _OWN.get(number) or KINDS.get(number, "")
