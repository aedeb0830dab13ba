"""Peers that reach each other by sealed letters only, and act by their own clocks; in threads in place of processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from protocols.errors import ProtocolError
from securefl.account import load_identity
from securefl.engines.correspondence import Deadlines
from securefl.engines.mailbox import Mailbox
from securefl.peers.apart import Apart, Others
from securefl.peers.channel import Channels
from securefl.peers.clock import Clock
from securefl.peers.sealing import Sealing
from tests.securefl.federation import NAMES
from tests.securefl.peers.circles import Table

DEADLINES = Deadlines(exchange=2.0, training=20.0)


class Process:
    """One peer as it would be a process of its own. ``frozen``: nothing reaches it, and it does nothing."""

    def __init__(self, name: str, table: Table, post: dict[str, Process]) -> None:
        clock = Clock(DEADLINES)
        self.frozen = Event()
        self._over = Event()
        _, peer = table.made(name, clock.overdue)
        identity = load_identity(table.disks[name][0])
        self._channels = Channels(name, identity, peer.circle.roster)
        self._post = post
        self._mailboxes: dict[str, Mailbox] = {}
        others = Others(peer.circle.roster.keys, name, Sealing(self._channels, self._carried).carry, DEADLINES)
        self.apart = Apart(peer, others, clock, table.told[name].append)
        self._thread = Thread(target=self._live)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self.frozen.clear()
        self._thread.join()
        for mailbox in self._mailboxes.values():
            mailbox.close()

    def receive(self, data: bytes) -> bytes | None:
        try:
            return None if self.frozen.is_set() else self._channels.answer(data, self._letter)
        except ProtocolError:
            return None

    def _letter(self, sender: str, letter: bytes) -> bytes:
        if sender not in self._mailboxes:
            self._mailboxes[sender] = Mailbox(lambda request: self.apart.handle(sender, request))
        return self._mailboxes[sender].receive(letter, 1.0)

    def _carried(self, peer: str, data: bytes, seconds: float) -> bytes | None:
        while self.frozen.is_set():
            time.sleep(0.05)
        return self._post[peer].receive(data)

    def _live(self) -> None:
        while not self._over.is_set():
            if not self.frozen.is_set() and not self.apart.peer.over and self.apart.mine:
                self.apart.act()
            time.sleep(0.05)


def everybody(table: Table) -> Iterator[dict[str, Process]]:
    post: dict[str, Process] = {}
    for name in NAMES:
        post[name] = Process(name, table, post)
    for process in post.values():
        process.start()
    try:
        yield post
    finally:
        for process in post.values():
            process.stop()


def wait(post: dict[str, Process], names: tuple[str, ...], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not all(post[name].apart.peer.over for name in names):
        assert time.monotonic() < until, {name: post[name].apart.peer.round for name in names}
        time.sleep(0.05)


def models(post: dict[str, Process]) -> set[bytes]:
    return {process.apart.peer.memory.standing.state.model for process in post.values()}


def test_peers_that_are_apart_act_in_turn() -> None:
    for post in everybody(Table(rounds=3)):
        wait(post, NAMES, 60)
        assert len(models(post)) == 1
        batons = post["eve"].apart.peer.memory.batons()
        assert [baton.maker for baton in batons] == ["ada", "bob", "cyd"]
        assert [baton.record.contributors for baton in batons] == [NAMES] * 3


@pytest.mark.slow
def test_the_next_one_acts_where_one_is_silent_and_it_catches_up_when_it_is_back() -> None:
    table = Table(rounds=3)
    for post in everybody(table):
        until = time.monotonic() + 60
        while not any("round 1 is settled" in line for line in table.told["ada"]):
            assert time.monotonic() < until
            time.sleep(0.01)
        post["bob"].frozen.set()
        others = tuple(name for name in NAMES if name != "bob")
        wait(post, others, 90)
        post["bob"].frozen.clear()
        wait(post, NAMES, 60)
        assert len(models(post)) == 1
        batons = post["bob"].apart.peer.memory.batons()
        assert [baton.maker for baton in batons] == ["ada", "cyd", "cyd"]
        assert batons[1].turn == 1 and batons[1].record.contributors == others
