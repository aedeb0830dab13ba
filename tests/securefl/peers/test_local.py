"""Peers in one process: each acts in its turn, and whoever dies over it is followed by the next."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from securefl import DPSGD
from securefl.engines.local import Corruption, Silence
from securefl.errors import RoundFailed
from securefl.peers.faults import PLACES, Death, Place
from securefl.peers.turns import acting
from securefl.privacy.mechanism import Budget
from securefl.progress import Watcher
from securefl.round import federate
from tests.securefl.federation import NAMES, clients, final_model, server
from tests.securefl.peers.circles import SHIELDS, Table


@cache
def central(cell: str, rounds: int, missing: tuple[tuple[str, int], ...] = ()) -> bytes:
    """The model of a run with a server of its own, in which these clients miss these rounds."""
    coordinator, owners = server(shield=SHIELDS[cell]), clients()
    list(federate(coordinator, owners, rounds, faults=[Silence(name, 0, number) for name, number in missing]))
    return final_model(coordinator, owners).tobytes()


def assert_same(got: bytes, wanted: bytes) -> None:
    """To what the encoding rounds: its coins come with the session's keys, which are never from a seed."""
    np.testing.assert_allclose(np.frombuffer(got, "<f4"), np.frombuffer(wanted, "<f4"), atol=1e-5)


def one_of(models: dict[str, bytes]) -> bytes:
    """The model that all peers hold."""
    (found,) = set(models.values())
    return found


@pytest.mark.parametrize("cell", SHIELDS)
def test_peers_in_turn_reach_the_model_of_a_central_server(cell: str) -> None:
    table = Table(cell, rounds=2)
    settled = list(table.all.rounds())
    assert [baton.maker for baton in settled] == [acting(NAMES, number, 0) for number in (1, 2)] == ["ada", "bob"]
    assert [baton.record.contributors for baton in settled] == [NAMES] * 2
    assert_same(one_of(table.models()), central(cell, 2))


# What the others have of a round when the acting peer dies, so that its sum is the round's: it was handed to somebody,
# or a quorum's votes for its baton were.
KNOWN = {("sum", 3), ("apply", 0), ("apply", 3), ("vote", 0, "ckks"), ("vote", 3, "ckks"), ("lock", 0, "ckks")}
KNOWN |= {("lock", 3), ("take", 0), ("take", 3)}
MASKED: tuple[Place, ...] = tuple(place for place in PLACES if place not in ("sum", "apply"))
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("cell", "place", "sent"),
    [
        ("secagg", "masked-input", 0),
        ("secagg", "vote", 0),
        ("secagg", "lock", 3),
        ("secagg", "take", 0),
        ("ckks", "sum", 3),
        *(pytest.param("secagg", place, sent, marks=SLOW) for place in MASKED for sent in (0, 3)),
        *(pytest.param("ckks", place, sent, marks=SLOW) for place in PLACES for sent in (0, 3)),
    ],
)
def test_the_next_goes_on_wherever_the_acting_peer_dies(cell: str, place: Place, sent: int) -> None:
    table = Table(cell, rounds=2, faults=[Death(place, 1, sent)])
    first, second = table.all.rounds()
    table.all.finish()
    known = {(place, sent), (place, sent, cell)} & KNOWN
    # Else the round is formed anew, without it; it is back in the next.
    assert first.record.contributors == (NAMES if known else NAMES[1:])
    assert second.record.contributors == NAMES
    assert first.maker == ("ada" if place == "take" or (place, sent) == ("lock", 3) else "bob")
    assert second.maker == "bob"
    assert_same(one_of(table.models()), central(cell, 2, () if known else (("ada", 1),)))


PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)


def test_an_attempt_that_died_with_its_acting_peer_stays_charged() -> None:
    table = Table(rounds=2, mechanism=PRIVATE, budget=Budget(9.0, 1e-5), faults=[Death("consistency", 1)])
    records = [baton.record for baton in table.all.rounds()]
    charged = {name: [(one.round, one.attempt) for one in table.ledgers[name].entries()] for name in NAMES}
    assert charged["ada"] == [(1, 1), (2, 1)]  # it was dead when the round was tried again
    assert charged["cyd"] == [(1, 1), (1, 3), (2, 1)]
    for record in records:
        assert all((record.round, record.attempt) in charged[name] for name in record.contributors)


@pytest.mark.attack("a ledger that is set back once another peer acts")
def test_what_acting_peers_saw_of_ledgers_travels_with_the_baton(tmp_path: Path) -> None:
    """Heads are shown to whoever acts, and each acts in its turn: eve's ledger is set back before it is cyd's."""
    table = Table(rounds=3, mechanism=PRIVATE, budget=Budget(9.0, 1e-5), folder=tmp_path)
    rounds = table.all.rounds()
    next(rounds)
    earlier = (tmp_path / "eve.sqlite").read_bytes()
    next(rounds)
    (tmp_path / "eve.sqlite").write_bytes(earlier)
    table.open_ledger("eve")
    table.start()
    (settled,) = table.all.rounds()
    assert settled.maker == "cyd" and settled.record.contributors == NAMES[:4]
    assert "rolled back" in settled.record.dropped["eve"]


def test_a_seeded_simulation_repeats_itself_attempt_for_attempt() -> None:
    tables = [Table(rounds=1, mechanism=PRIVATE, budget=Budget(9.0, 1e-5), seed=5) for _ in range(2)]
    models = []
    for table in tables:
        list(table.all.rounds())
        models.append(one_of(table.models()))
    assert_same(*models)


def test_all_peers_stop_and_go_on_from_their_disks() -> None:
    table = Table("ckks", rounds=3)
    next(table.all.rounds())
    table.start()
    assert [baton.record.round for baton in table.all.rounds()] == [2, 3]
    table.all.finish()
    assert_same(one_of(table.models()), central("ckks", 3))


class Stopped(BaseException):
    """The whole machine is gone."""


class Stopping(Watcher):
    """Pulls the plug as soon as the acting peer is dead."""

    def tell(self, what: str) -> None:
        raise Stopped


@pytest.mark.parametrize(("place", "sent"), [("masked-input", 3), ("vote", 3), ("lock", 3)])
def test_the_machine_stops_in_the_middle_of_a_round(place: Place, sent: int) -> None:
    """All are started again; the next in turn goes on, with what a quorum voted for, if it did."""
    table = Table(rounds=1, faults=[Death(place, 1, sent)], watcher=Stopping())
    with pytest.raises(Stopped):
        next(table.all.rounds())
    table.faults, table.watcher = (), Watcher()
    table.start()
    (settled,) = table.all.rounds()
    assert (settled.maker, settled.turn) == (("ada", 0) if place == "lock" else ("bob", 1))
    assert settled.record.contributors == NAMES


def test_a_silent_peer_is_caught_up_with_the_round_that_it_missed() -> None:
    table = Table(rounds=3, faults=[Silence("eve", 2, 1), Corruption("dan", 2, 2)])
    contributors = [baton.record.contributors for baton in table.all.rounds()]
    assert contributors == [NAMES[:4], ("ada", "bob", "cyd", "eve"), NAMES]
    assert len(set(table.models().values())) == 1


def test_too_few_peers_end_the_run_and_more_of_them_go_on_with_it() -> None:
    table = Table(rounds=1, faults=[Silence(name, 2, 1) for name in NAMES[:3]])
    with pytest.raises(RoundFailed, match="are left after exchange 2"):
        next(table.all.rounds())
    table.faults = ()
    table.start()
    (settled,) = table.all.rounds()
    assert (settled.maker, settled.turn, settled.record.attempt) == ("bob", 1, 3)
