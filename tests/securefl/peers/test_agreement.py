"""Whatever is lost on the way and whoever dies: no two peers ever settle on different batons for one round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.primitives import digest
from securefl.errors import RoundFailed
from securefl.peers.faults import PLACES, Death
from securefl.peers.peer import Peer
from tests.securefl.federation import NAMES
from tests.securefl.peers.circles import Table

ROUNDS = 2
TRIES = 12


@dataclass
class Lossy:
    """The way to one peer, on which one message in so many is lost, before or after it was handled."""

    peer: Peer
    seed: int
    one_in: int
    count: int = field(default=0)

    def handle(self, sender: str, request: bytes) -> bytes | None:
        self.count += 1
        drawn = digest("loss", self.seed.to_bytes(8, "big"), self.peer.name.encode(), self.count.to_bytes(8, "big"))
        if drawn[0] % self.one_in == 0:
            return None
        reply = self.peer.handle(sender, request)
        return None if drawn[1] % self.one_in == 0 else reply

    def __getattr__(self, name: str) -> object:
        return getattr(self.peer, name)


def settled(table: Table) -> list[dict[int, bytes]]:
    """By peer, what it has settled on in each round."""
    found = []
    for peer in table.all.peers.values():
        rounds = range(1, peer.round + 1)
        batons = {number: peer.memory.settled(number) for number in rounds}
        found.append({number: one.passed.baton for number, one in batons.items() if one is not None})
    return found


def run(seed: int, one_in: int, deaths: Sequence[Death], cell: str) -> None:
    table = Table(cell, rounds=ROUNDS, faults=deaths)
    for attempt in range(TRIES):
        lossy = attempt < TRIES - 3
        if lossy:
            for name in NAMES:
                table.all.peers[name] = Lossy(table.all.peers[name], seed + attempt, one_in)  # type: ignore[assignment]
        try:
            list(table.all.rounds())
            table.all.finish()
        except RoundFailed:
            pass
        table.faults = ()
        table.start()
        seen = settled(table)
        for number in range(1, ROUNDS + 1):
            assert len({one[number] for one in seen if number in one}) <= 1, f"two batons of round {number}"
        if table.all.round == ROUNDS and not lossy:
            break
    table.all.finish()
    assert [sorted(one) for one in settled(table)] == [[1, 2]] * len(NAMES)
    assert len(set(table.models().values())) == 1


DEATHS = st.lists(
    st.builds(Death, st.sampled_from(PLACES), st.integers(1, ROUNDS), st.integers(0, 5)), max_size=2, unique=True
)


@settings(max_examples=2)
@given(st.integers(0, 2**32), st.sampled_from([12, 30]), DEATHS)
def test_peers_settle_on_one_baton_a_round(seed: int, one_in: int, deaths: list[Death]) -> None:
    run(seed, one_in, deaths, "secagg")


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([8, 20, 40]), DEATHS)
def test_peers_settle_on_one_baton_a_round_in_many_runs(seed: int, one_in: int, deaths: list[Death]) -> None:
    run(seed, one_in, deaths, "secagg")


@pytest.mark.slow
@settings(max_examples=12)
@given(st.integers(0, 2**32), st.sampled_from([20, 40]), DEATHS)
def test_so_do_key_holders(seed: int, one_in: int, deaths: list[Death]) -> None:
    run(seed, one_in, deaths, "ckks")
