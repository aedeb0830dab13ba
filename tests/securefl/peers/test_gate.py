"""Which sum a peer keeps, that whoever acts next hands out again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import ApplyRequest
from protocols.wire import decode, encode
from securefl.peers.acting import Acting
from securefl.peers.gathering import given
from securefl.peers.peer import Peer
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table, refused


def kept(peer: Peer) -> bytes:
    held = peer.memory.next.handed
    return b"" if held is None else held.request


@pytest.mark.attack("an acting peer that hands down another sum after the one that was decrypted")
def test_nothing_takes_the_place_of_a_sum_that_the_client_agreed_to() -> None:
    table = Table("ckks", rounds=2)
    next(table.all.rounds())
    bob, reach = table.all.peers["bob"], table.all.reach("bob")
    Acting(bob, reach, table.together)._made(0, given(bob, reach, reach, 0))  # bob keeps the baton to himself
    true = kept(table.all.peers["ada"])
    assert true and all(kept(table.all.peers[name]) == true for name in NAMES)
    rubbish = encode(ApplyRequest(RUN, 2, 1, b"", (), b"", b"", (), ()))
    altered = encode(replace(decode(true, ApplyRequest), total=b"\0" * 32))
    for name in NAMES:
        for bad in (rubbish, altered):
            assert not refused(table.all.peers[name].handle("bob", bad))  # it says again what it said of the true one
            assert kept(table.all.peers[name]) == true
    table.all._dead.add("bob")
    table.all._given_up.add((2, 0))
    (settled,) = table.all.rounds()
    assert settled.maker == "cyd" and settled.record.contributors == NAMES
    assert settled.state.counts == dict.fromkeys(NAMES, 2)


def test_what_is_no_sum_is_not_kept() -> None:
    table = Table("ckks", rounds=1)
    reach = table.all.reach("ada")
    given(table.all.peers["ada"], reach, reach, 0)
    rubbish = encode(ApplyRequest(RUN, 1, 1, b"", (), b"", b"", (), ()))
    assert refused(table.all.peers["cyd"].handle("ada", rubbish))
    assert table.all.peers["cyd"].memory.next.handed is None
