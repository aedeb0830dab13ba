"""A peer gets its turn, and what it has to pass on, whatever others withhold or claim."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocols.aggregation.messages import Refusal
from protocols.base import Messages, Replies
from protocols.wire import decode, encode, kind
from securefl.peers import grants
from securefl.peers.acting import Acting
from securefl.peers.baton import name_of
from securefl.peers.gathering import NotGiven, given
from securefl.peers.messages import (
    Certificate,
    Fetched,
    FetchRequest,
    TakeRequest,
    TurnReply,
    TurnRequest,
    VoteRequest,
)
from securefl.peers.settling import _Words
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table
from tests.securefl.peers.test_attacks import lying


def voted(table: Table, name: str, turn: int) -> Certificate:
    """A quorum's votes for a baton that a peer made at its turn, which it shows to nobody; the turn is over."""
    peer, reach = table.all.peers[name], table.all.reach(name)
    found = given(peer, reach, reach, turn)
    passed = Acting(peer, reach, table.together)._made(turn, found)
    words = _Words(peer, reach, sorted(found.grants), 1, turn, name_of(passed.baton))
    votes = words.collect("vote", VoteRequest(RUN, 1, turn, passed, tuple(found.grants.values()), None))
    table.all._given_up.add((1, turn))
    table.all._first = turn + 1
    return votes


def withholding(table: Table, votes: Certificate, silent: tuple[int, ...] = ()) -> Callable[[str, bytes], bytes | None]:
    """ada, who names the lock with these votes at every turn but the silent ones, and hands over no baton."""
    ada, identity = table.all.peers["ada"], table.client("ada").identity

    def lie(sender: str, request: bytes) -> bytes | None:
        if kind(request) == FetchRequest.KIND:
            return encode(Fetched(None, None))
        if kind(request) != TurnRequest.KIND:
            return None
        asked, standing = decode(request, TurnRequest), ada.memory.standing
        if asked.turn in silent:
            return encode(Refusal("protocol"))
        if not asked.due:
            return encode(TurnReply(0, due=grants.due(ada.circle, "ada", identity, standing, asked.turn)))
        return encode(TurnReply(0, grants.grant(ada.circle, "ada", identity, standing, asked.turn, votes), votes))

    return lie


@pytest.mark.attack("a peer that names a lock and withholds its baton")
def test_who_voted_for_a_baton_hands_it_over() -> None:
    table = Table(rounds=1)
    lying(table, "ada", withholding(table, voted(table, "ada", 0)))
    (settled,) = table.all.rounds()
    assert (settled.maker, table.all.last) == ("ada", "bob") and settled.record.contributors == NAMES


@pytest.mark.attack("a peer that names the lock of a baton that nobody has any more")
def test_a_lock_whose_baton_nobody_has_stops_no_turn() -> None:
    """At turn 1 all others voted for bob's baton, and he stopped before anybody locked it."""
    table = Table(rounds=1)
    votes = voted(table, "ada", 0)
    lying(table, "ada", withholding(table, votes, silent=(1,)))
    voted(table, "bob", 1)
    (settled,) = table.all.rounds()
    assert settled.maker == "cyd" and settled.turn == 2 and settled.record.contributors == NAMES[1:]


@pytest.mark.attack("a peer that says that it is behind and takes up nothing")
def test_who_is_behind_is_not_waited_for_where_a_quorum_is_there() -> None:
    table = Table(rounds=2)
    next(table.all.rounds())

    def lie(sender: str, request: bytes) -> bytes | None:
        if kind(request) == TurnRequest.KIND:
            return encode(TurnReply(0))
        return encode(Refusal("protocol")) if kind(request) == TakeRequest.KIND else None

    def patient(requests: Messages) -> Replies:
        raise AssertionError("the turn was spent on it")

    lying(table, "eve", lie)
    found = given(table.all.peers["bob"], patient, table.all.reach("bob"), 0)
    assert sorted(found.grants) == ["ada", "bob", "cyd", "dan"] and found.behind == {"eve": 0}
    lying(table, "dan", lie)  # without a quorum nothing is lost by patience
    with pytest.raises(AssertionError):
        given(table.all.peers["bob"], patient, table.all.reach("bob"), 0)


def test_nothing_is_noted_of_a_turn_that_no_quorum_gives() -> None:
    table = Table(rounds=1)
    for turn in (1, 2):
        name = table.all.peers["ada"].circle.acting(1, turn)
        with pytest.raises(NotGiven) as caught:
            given(table.all.peers[name], table.all.reach(name), table.all.reach(name), turn)
        assert caught.value.reached == -1
    assert {peer.memory.next.turn for peer in table.all.peers.values()} == {-1}


@pytest.mark.attack("a peer that says how late it is without a quorum's word")
def test_a_turn_is_given_on_a_quorums_word_only() -> None:
    table = Table(rounds=1)
    bob = table.all.peers["bob"]
    word = grants.due(bob.circle, "bob", table.client("bob").identity, bob.memory.standing, 1)
    for words in ((word,), (word,) * 4):
        replies = [peer.handle("bob", encode(TurnRequest(RUN, 1, 1, words))) for peer in table.all.peers.values()]
        assert {kind(reply) for reply in replies} == {Refusal.KIND}


def test_who_is_late_learns_which_turn_an_honest_peer_has_given() -> None:
    table = Table(rounds=1)
    for name, turn in (("cyd", 7), ("dan", 4), ("eve", 9)):
        table.all.peers[name].memory.note(turn=turn)
    with pytest.raises(NotGiven) as caught:
        given(table.all.peers["ada"], table.all.reach("ada"), table.all.reach("ada"), 0)
    assert caught.value.reached == 7  # of three, at most one lies
