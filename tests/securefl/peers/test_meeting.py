"""Peers that act by their own clocks, in a time of their own: who began earlier meets who began later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protocols.aggregation.messages import InputRequest
from protocols.base import Messages, Replies
from protocols.wire import decode, encode, kind
from securefl.closing import EndorseRequest
from securefl.engines.correspondence import Deadlines
from securefl.peers.apart import Apart, Others
from securefl.peers.clock import Clock, step
from securefl.peers.messages import TurnReply, TurnRequest
from securefl.peers.peer import Peer
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table

DEADLINES = Deadlines(exchange=10.0, training=100.0)
STEP = step(DEADLINES)
SOME = (("ada", "bob"), ("eve",))
LOOK = 5.0  # seconds between looks at whose turn it is: here turns last three of them


class Hall:
    """Some peers of a table, each with a clock from when it came; letters take no time."""

    def __init__(self, table: Table) -> None:
        self.table, self.now, self.here = table, 0.0, dict[str, Apart]()

    def come(self, *names: str) -> None:
        for name in names:
            clock = Clock(DEADLINES, lambda: self.now)
            _, peer = self.table.made(name, clock.overdue)
            self.here[name] = Apart(peer, Near(self, name), clock)

    def wait(self, seconds: float, without: Sequence[str] = ()) -> None:
        """Let time pass, until the run is over; those without whom it does are gone."""
        for name in without:
            del self.here[name]
        until = self.now + seconds
        while self.now < until and not all(one.peer.over for one in self.here.values()):
            for one in self.here.values():
                if not one.peer.over and one.mine:
                    one.act()
            self.now += LOOK


class Near(Others):
    """The others, who answer at once."""

    def __init__(self, hall: Hall, own: str) -> None:
        super().__init__(dict.fromkeys(NAMES, b""), own, lambda name, letter, seconds: None, DEADLINES)
        self._hall = hall

    def reach(self, requests: Messages) -> Replies:
        for name, request in dict(requests).items():
            if name in self._hall.here:
                yield name, self._hall.here[name].handle(self._own, request)

    def soon(self, requests: Messages) -> Replies:
        return self.reach(requests)


@pytest.mark.parametrize("late", [14.0, 3600.0, *(pytest.param(late, marks=pytest.mark.slow) for late in (0.0, 100.0))])
@pytest.mark.parametrize("early", [("bob", "cyd", "dan"), *(pytest.param(one, marks=pytest.mark.slow) for one in SOME)])
def test_who_came_early_meets_who_comes_late(early: tuple[str, ...], late: float) -> None:
    hall = Hall(Table(rounds=2))
    hall.come(*early)
    hall.wait(late)
    hall.come(*(name for name in NAMES if name not in early))
    hall.wait(20 * STEP)
    assert {one.peer.round for one in hall.here.values()} == {2}


def test_all_who_came_at_different_times_meet_though_one_is_gone() -> None:
    hall = Hall(Table(rounds=2))
    for name, pause in zip(NAMES, (400.0, 27.0, 190.0, 33.0, 0.0), strict=True):
        hall.come(name)
        hall.wait(pause)
    hall.wait(30 * STEP, without=["cyd"])
    assert {one.peer.round for one in hall.here.values()} == {2}


@pytest.mark.attack("a peer that has others give one of them its turn, hour after hour")
def test_nobody_is_taken_further_on_than_a_quorums_clocks() -> None:
    hall = Hall(Table(rounds=1))
    hall.come("ada", "bob")
    hall.wait(3600.0)
    for turn in range(4, 200, 5):  # those that are eve's
        for one in hall.here.values():
            one.handle("eve", encode(TurnRequest(RUN, 1, turn)))
    assert [one.peer.memory.next.turn for one in hall.here.values()] == [-1, -1]
    hall.come("cyd", "dan")
    hall.wait(20 * STEP)
    assert {one.peer.round for one in hall.here.values()} == {1}


def test_who_is_behind_in_turns_catches_up_with_what_honest_peers_have_given() -> None:
    hall = Hall(Table(rounds=1))
    hall.come(*NAMES)
    for name in ("cyd", "dan", "eve"):
        hall.here[name].peer.memory.note(turn=1000)
    hall.wait(20 * STEP)
    assert {one.peer.round for one in hall.here.values()} == {1}


def test_a_peer_that_trains_long_gives_nobody_else_the_turn_meanwhile() -> None:
    hall = Hall(Table(rounds=1))
    hall.come(*NAMES)
    seen: list[TurnReply] = []

    class Slow:
        """bob, whose training takes longer than an exchange and a turn's silence together."""

        def __init__(self, peer: Peer) -> None:
            self._peer = peer

        def handle(self, sender: str, request: bytes) -> bytes:
            if kind(request) == InputRequest.KIND:
                hall.now += STEP + DEADLINES.exchange + 20.0
                seen.append(decode(self._peer.handle("bob", encode(TurnRequest(RUN, 1, 1))), TurnReply))
            return self._peer.handle(sender, request)

        def __getattr__(self, name: str) -> object:
            return getattr(self._peer, name)

    hall.here["bob"].peer = Slow(hall.here["bob"].peer)  # type: ignore[assignment]
    hall.here["ada"].act()
    assert [reply.due for reply in seen] == [None]
    assert {one.peer.round for one in hall.here.values()} == {1}


# ---- the end


@pytest.mark.attack("a peer that ends the run for others out of turn")
def test_a_run_is_ended_by_whose_turn_it_is() -> None:
    hall = Hall(Table(rounds=1))
    hall.come(*NAMES)
    hall.wait(20 * STEP)

    class Content:
        """bob, who signs whatever report he is shown."""

        def __init__(self, peer: Peer) -> None:
            self._peer = peer

        def handle(self, sender: str, request: bytes) -> bytes:
            return encode(TurnReply(0))

        def __getattr__(self, name: str) -> object:
            return getattr(self._peer, name)

    bob = hall.here["bob"]
    bob.peer = Content(bob.peer)  # type: ignore[assignment]
    request = encode(EndorseRequest(RUN, b"{}"))
    for sender in ("bob", "cyd", "eve"):  # it is ada's turn, who acted in the last round
        bob.handle(sender, request)
        assert not bob.ended
    hall.now += STEP
    bob.handle("ada", request)
    assert not bob.ended  # and now it is bob's own
    hall.here["cyd"].handle("ada", b"rubbish")
    bob.handle("bob", request)
    assert bob.ended
