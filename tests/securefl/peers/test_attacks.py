"""What a peer that lies can do: to a client alone, or to whoever checks nothing, and to the real ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import ApplyRequest, Envelope, KeysRequest
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SecAgg
from securefl.announcement import Announcement, public_tag
from securefl.closing import StateRequest
from securefl.errors import Refused, RoundFailed
from securefl.peers.faults import Death
from securefl.peers.messages import (
    Certificate,
    Fetched,
    FetchRequest,
    Grant,
    LockRequest,
    Said,
    Sum,
    SumRequest,
    TurnReply,
    TurnRequest,
    VoteRequest,
    Word,
)
from securefl.peers.peer import Peer
from securefl.privacy.mechanism import Budget
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table, refused

# In round 1 it is ada's turn, in round 2 bob's; eve is the one who lies unless it says otherwise.


def announced(table: Table, attempt: int = 1, model: bytes | None = None) -> bytes:
    """Exchange 0 of the round after what is settled, as a server begins it."""
    standing = table.all.peers["bob"].memory.standing
    own = standing.state.model if model is None else model
    plan = table.all.peers["bob"].circle.plan
    return encode(KeysRequest(Announcement(RUN, standing.round + 1, attempt, plan, own, public_tag(own)).encoded()))


def ask_for_turn(table: Table, name: str, turn: int = 0) -> dict[str, TurnReply]:
    """By whom it is given; asked for once without the words that it is time, and once with those that were said."""
    asked = TurnRequest(RUN, table.all.round + 1, turn)
    words = (reply.due for reply in replies(table, name, asked).values())
    asked = replace(asked, due=tuple(word for word in words if word is not None))
    return {other: reply for other, reply in replies(table, name, asked).items() if reply.grant is not None}


def replies(table: Table, name: str, asked: TurnRequest) -> dict[str, TurnReply]:
    found = {other: peer.handle(name, encode(asked)) for other, peer in table.all.peers.items()}
    return {other: decode(reply, TurnReply) for other, reply in found.items() if not refused(reply)}


# ---- acting without a turn


@pytest.mark.attack("a client that acts as the server out of turn")
def test_nobody_works_for_a_peer_that_it_gave_no_turn() -> None:
    table = Table(mechanism=DPSGD(4.0, 0.5, 3), budget=Budget(9.0, 1e-5))
    alone, peer = table.client("bob"), table.all.peers["bob"]
    alone.pin(peer.circle.roster.keys, peer.circle.plan)
    request = announced(table)
    assert kind(alone.handle(request)) == Envelope.KIND  # a client alone answers whoever asks
    assert refused(Table().all.peers["bob"].handle("eve", request))
    assert ask_for_turn(table, "eve") == {}
    for name in NAMES:
        assert refused(table.all.peers[name].handle("eve", request))
    assert "eve acts as the server, and this peer gave it no turn in round 1" in table.told["ada"][-1]


@pytest.mark.attack("a peer that says that others have had their turn")
def test_a_later_turn_is_given_by_those_only_who_see_that_it_is_time() -> None:
    table = Table()
    assert table.all.peers["bob"].circle.acting(1, 4) == "eve"
    assert ask_for_turn(table, "eve", 4) == {}
    assert ask_for_turn(table, "eve", 10**9 + 4) == {}
    assert "it is not time for turn 4 of round 1 yet" in table.told["bob"][0]
    assert [baton.maker for baton in table.all.rounds()] == ["ada", "bob"]


@pytest.mark.attack("an attempt number that nobody can follow")
def test_a_huge_attempt_locks_nobody_out() -> None:
    weak, table = Table(), Table(rounds=1)
    alone = weak.client("bob")
    alone.pin(weak.all.peers["bob"].circle.roster.keys, weak.all.peers["bob"].circle.plan)
    assert not refused(alone.handle(announced(weak, 2**50)))
    assert refused(alone.handle(announced(weak, 1)))  # it will never join another attempt of this round
    assert ask_for_turn(table, "ada")
    for peer in table.all.peers.values():
        assert refused(peer.handle("ada", announced(table, 2**50)))
    assert "attempt 1125899906842624 of round 1 is not one of turn 0" in table.told["bob"][-1]
    table.start()
    assert [len(baton.record.contributors) for baton in table.all.rounds()] == [5]


@pytest.mark.attack("ending others' part in a run before its end")
def test_nobody_states_anything_before_the_last_round_is_settled() -> None:
    table = Table(rounds=2)
    rounds = table.all.rounds()
    next(rounds)
    ask_for_turn(table, "bob")
    request = encode(StateRequest(RUN))
    assert refused(table.all.peers["ada"].handle("bob", request))
    assert refused(table.all.peers["ada"].handle("eve", request))
    assert len(next(rounds).record.contributors) == 5
    assert not refused(table.all.peers["ada"].handle("eve", request))
    weak = table.client("ada")
    weak.pin(table.all.peers["ada"].circle.roster.keys, table.all.peers["ada"].circle.plan)
    assert not refused(weak.handle(request))  # a client alone does so whenever it is asked


@pytest.mark.attack("an acting peer that announces a model of its own making")
def test_a_round_begins_with_the_model_that_is_settled() -> None:
    table = Table()
    own = bytes(len(table.all.peers["ada"].memory.standing.state.model))
    alone = table.client("bob")
    alone.pin(table.all.peers["bob"].circle.roster.keys, table.all.peers["bob"].circle.plan)
    assert not refused(alone.handle(announced(table, model=own)))
    ask_for_turn(table, "ada")
    assert refused(table.all.peers["cyd"].handle("ada", announced(table, model=own)))
    assert "with another model than the one that is settled" in table.told["cyd"][-1]


def test_a_plan_without_colluders_has_no_peers() -> None:
    """It promises nothing about an acting server, who is one of the clients."""
    with pytest.raises(Refused, match="colluders = 0"):
        Table(shield=SecAgg())


# ---- answers


class Liar:
    """A peer in front of which somebody answers, and sometimes lets it answer itself."""

    def __init__(self, peer: Peer, lie: Callable[[str, bytes], bytes | None]) -> None:
        self._peer, self._lie = peer, lie

    def handle(self, sender: str, request: bytes) -> bytes:
        lie = self._lie(sender, request)
        return self._peer.handle(sender, request) if lie is None else lie

    def __getattr__(self, name: str) -> object:
        return getattr(self._peer, name)


def lying(table: Table, name: str, lie: Callable[[str, bytes], bytes | None]) -> None:
    table.all.peers[name] = Liar(table.all.peers[name], lie)  # type: ignore[assignment]


@pytest.mark.attack("a peer that says that it is further on, or behind")
@pytest.mark.parametrize("claim", [10**6, 0])
def test_who_lies_about_how_far_it_is_stops_nobody(claim: int) -> None:
    table = Table(rounds=2)

    def lie(sender: str, request: bytes) -> bytes | None:
        return encode(TurnReply(claim)) if kind(request) == TurnRequest.KIND else None

    rounds = table.all.rounds()
    next(rounds)
    lying(table, "eve", lie)
    assert next(rounds).record.contributors == ("ada", "bob", "cyd", "dan")
    assert len({model for name, model in table.models().items() if name != "eve"}) == 1


@pytest.mark.attack("a peer that names a lock that nobody has")
def test_a_lock_without_votes_binds_nobody() -> None:
    table = Table(rounds=1)

    def lie(sender: str, request: bytes) -> bytes | None:
        if kind(request) != TurnRequest.KIND:
            return None
        eve = table.client("eve")
        circle, standing = table.all.peers["ada"].circle, table.all.peers["ada"].memory.standing
        about = (standing.digest, (1).to_bytes(8, "big"), bytes(32))
        signature = circle.sign(eve.identity, "turn", 1, 0, *about)
        votes = Certificate(0, bytes(32), tuple(Word(name, bytes(64)) for name in NAMES))
        return encode(TurnReply(0, Grant("eve", 0, bytes(32), signature), votes))

    lying(table, "eve", lie)
    (settled,) = table.all.rounds()
    assert settled.record.contributors == NAMES[:4]


@pytest.mark.attack("words in the names of others")
def test_words_that_others_did_not_say_count_for_nothing() -> None:
    """Two of five say nothing, and eve answers every vote with rubbish: there is no quorum, and nothing is settled."""
    table = Table(rounds=1)

    def lie(sender: str, request: bytes) -> bytes | None:
        return encode(Said(bytes(64))) if kind(request) in (VoteRequest.KIND, LockRequest.KIND) else None

    lying(table, "eve", lie)
    lying(table, "dan", lie)
    with pytest.raises(RoundFailed, match="3 peers gave their vote"):
        list(table.all.rounds())
    assert table.all.round == 0


@pytest.mark.attack("a sum that was changed on its way to the next acting peer")
def test_who_was_handed_the_true_sum_outvotes_who_changed_it() -> None:
    """bob, who acts after ada has died, asks for the sum that she handed down: eve shows him another."""
    table = Table("ckks", rounds=1, faults=[Death("apply", 1)])

    def lie(sender: str, request: bytes) -> bytes | None:
        if kind(request) == TurnRequest.KIND and sender == "bob":
            true = decode(eve.handle(sender, request), TurnReply)
            return encode(replace(true, handed=b"\0" * 32))
        if kind(request) == SumRequest.KIND:
            true_sum = decode(eve.handle(sender, request), Sum)
            assert true_sum.handed is not None
            altered = replace(decode(true_sum.handed.request, ApplyRequest), total=b"\0" * 32)
            return encode(Sum(replace(true_sum.handed, request=encode(altered))))
        return None

    eve = table.all.peers["eve"]
    lying(table, "eve", lie)
    (settled,) = table.all.rounds()
    assert settled.maker == "bob" and settled.record.contributors == NAMES and not settled.record.void


def test_whatever_bytes_come_are_refused() -> None:
    table = Table()
    for request in (b"", b"SF\x01", encode(FetchRequest(RUN, 1))[:-1], encode(FetchRequest("another", 1))):
        assert refused(table.all.peers["ada"].handle("eve", request))
    assert decode(table.all.peers["ada"].handle("eve", encode(FetchRequest(RUN, 1))), Fetched) == Fetched(None, None)
