"""What an acting peer keeps of its round, whatever clients sign in between."""

from __future__ import annotations

import pytest

from protocols.aggregation.messages import Header, SharesRequest, envelope
from protocols.aggregation.session import Step
from protocols.wire import encode, kind
from securefl import DPSGD
from securefl.errors import RoundFailed
from securefl.peers.evidence import Evidence
from securefl.privacy.mechanism import Budget
from tests.securefl.peers.circles import Table
from tests.securefl.peers.test_attacks import lying


@pytest.mark.attack("a client that signs keys of another session in the middle of a round")
def test_an_odd_reply_of_another_session_costs_nobody_the_round() -> None:
    table = Table(rounds=1, mechanism=DPSGD(4.0, 0.5, 3), budget=Budget(9.0, 1e-5))

    def lie(sender: str, request: bytes) -> bytes | None:
        if kind(request) != SharesRequest.KIND:
            return None
        header = Header(b"x" * 32, Step.KEYS, "eve", b"", b"", b"")
        return encode(envelope(table.client("eve").identity, header, [b"zz"]))

    lying(table, "eve", lie)
    (settled,) = table.all.rounds()
    assert settled.record.contributors == ("ada", "bob", "cyd", "dan") and settled.turn == 0
    assert [len(table.ledgers[name].entries()) for name in settled.record.contributors] == [1] * 4


def test_whose_input_is_missing_is_named() -> None:
    server = Table(rounds=1).all.peers["ada"]
    kept = Evidence(server.circle, 1000, lambda: server.server.state)
    with pytest.raises(RoundFailed, match="the signed inputs of bob, eve are missing"):
        kept.inputs(("bob", "eve"))
