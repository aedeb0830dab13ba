"""What a peer that lies can do to the others: with a client alone, or a peer that checks nothing, and with the real one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import ApplyRequest, Envelope, KeysRequest, Refusal
from protocols.base import Messages, Replies
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SecAgg
from securefl.announcement import Announcement, public_tag
from securefl.closing import StateRequest
from securefl.errors import Refused, RoundFailed
from securefl.peers import baton as batons
from securefl.peers.acting import Acting
from securefl.peers.baton import Baton, Start, name_of
from securefl.peers.faults import Death
from securefl.peers.gathering import given
from securefl.peers.messages import (
    Certificate,
    Fetched,
    FetchRequest,
    Grant,
    LockRequest,
    Passed,
    Said,
    Settled,
    Sum,
    Taken,
    TakeRequest,
    TurnReply,
    TurnRequest,
    VoteRequest,
    Word,
)
from securefl.peers.peer import Peer
from securefl.privacy.mechanism import Budget
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table

# In round 1 it is ada's turn, in round 2 bob's; eve is the one who lies unless it says otherwise.


def announced(table: Table, attempt: int = 1, model: bytes | None = None) -> bytes:
    """Exchange 0 of the round after what is settled, as a server begins it."""
    standing = table.all.peers["bob"].memory.standing
    own = standing.state.model if model is None else model
    plan = table.all.peers["bob"].circle.plan
    return encode(KeysRequest(Announcement(RUN, standing.round + 1, attempt, plan, own, public_tag(own)).encoded()))


def refused(reply: bytes) -> bool:
    return kind(reply) == Refusal.KIND


def ask_for_turn(table: Table, name: str, turn: int = 0) -> dict[str, TurnReply]:
    asked = encode(TurnRequest(RUN, table.all.round + 1, turn))
    replies = {other: peer.handle(name, asked) for other, peer in table.all.peers.items()}
    return {other: decode(reply, TurnReply) for other, reply in replies.items() if not refused(reply)}


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


# ---- batons


def passed(table: Table, maker: str = "ada") -> tuple[Passed, tuple[Grant, ...]]:
    """A good baton of round 1, made by ada, and the grants behind her turn; nobody has seen it yet."""
    acting = Acting(table.all.peers[maker], table.all.reach(maker), table.together)
    found = given(table.all.peers[maker], table.all.reach(maker), 0)
    return acting._made(0, found), tuple(found.grants.values())


def resigned(table: Table, baton: Baton, model: bytes, signer: str = "ada") -> Passed:
    peer = table.all.peers[signer]
    return peer.sign(baton, model)


Change = Callable[[Table, Baton, Passed], Passed]


def by_another(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, baton, good.model, "eve")


def of_another_run(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, state=replace(baton.state, run="another")), good.model)


def older(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, state=replace(baton.state, round=0)), good.model)


def on_another_model(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, start=Start(b"other", b"")), good.model)


def on_another_baton(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, before=bytes(32)), good.model)


def without_contributors(table: Table, baton: Baton, good: Passed) -> Passed:
    outcome = baton.state.outcome
    assert outcome is not None
    state = replace(baton.state, outcome=replace(outcome, contributors=()))
    return resigned(
        table, replace(baton, state=state, inputs=(), record=replace(baton.record, contributors=())), good.model
    )


def with_signatures_of_another_session(table: Table, baton: Baton, good: Passed) -> Passed:
    outcome = baton.state.outcome
    assert outcome is not None
    state = replace(baton.state, outcome=replace(outcome, attempt=2))
    return resigned(table, replace(baton, state=state, record=replace(baton.record, attempt=2)), good.model)


def with_another_model(table: Table, baton: Baton, good: Passed) -> Passed:
    return Passed(good.baton, good.signature, bytes(len(good.model)))


def with_a_model_of_nan(table: Table, baton: Baton, good: Passed) -> Passed:
    model = b"\xff" * len(good.model)
    return resigned(table, replace(baton, state=replace(baton.state, tag=public_tag(model))), model)


def with_reasons_that_steer_a_terminal(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, record=replace(baton.record, dropped={"eve": "\x1b[2J"})), good.model)


def that_is_none(table: Table, baton: Baton, good: Passed) -> Passed:
    return Passed(b"\x93\x01\x02\x03", good.signature, good.model)


CHANGES: list[Change] = [
    by_another,
    of_another_run,
    older,
    on_another_model,
    on_another_baton,
    without_contributors,
    with_signatures_of_another_session,
    with_another_model,
    with_a_model_of_nan,
    with_reasons_that_steer_a_terminal,
    that_is_none,
]


@pytest.mark.attack("a baton that is not what came of the round")
def test_no_peer_votes_for_a_baton_that_is_not_what_came_of_the_round() -> None:
    table = Table(rounds=1)
    good, grants = passed(table)
    for change in CHANGES:
        bad = change(table, batons.decoded(good.baton), good)
        asked = encode(VoteRequest(RUN, 1, 0, bad, grants, None))
        assert all(refused(table.all.peers[name].handle("ada", asked)) for name in NAMES), change.__name__
        if change is not that_is_none:  # who checked nothing would go on from it
            assert batons.standing_after(bad, batons.decoded(bad.baton)).digest == name_of(bad.baton)
    asked = encode(VoteRequest(RUN, 1, 0, good, grants, None))
    assert all(not refused(table.all.peers[name].handle("ada", asked)) for name in NAMES)


@pytest.mark.attack("a baton that fewer than a quorum entitle to pass")
def test_a_baton_is_passed_by_whom_a_quorum_gave_the_turn() -> None:
    table = Table(rounds=1)
    good, grants = passed(table)
    stranger = Identity(bytes(32))
    circle = table.all.peers["bob"].circle
    forged = replace(grants[0], sender="bob", signature=stranger.sign(b"turn"))
    for entitling in (
        grants[: circle.quorum - 1],
        (*grants[:3], grants[0]),
        (*(g for g in grants if g.sender != "bob"), forged),
    ):
        asked = encode(VoteRequest(RUN, 1, 0, good, tuple(entitling), None))
        assert refused(table.all.peers["bob"].handle("ada", asked))
    asked = encode(VoteRequest(RUN, 1, 0, good, grants[: circle.quorum], None))
    assert refused(table.all.peers["bob"].handle("eve", asked))  # with grants that are another's
    assert not refused(table.all.peers["bob"].handle("ada", asked))


@pytest.mark.attack("an acting peer that passes two batons")
def test_two_batons_at_one_turn_split_the_votes_and_the_next_goes_on() -> None:
    """Neither has a quorum, unless one of them would have had it anyway."""
    table = Table(rounds=1)
    good, grants = passed(table)
    baton = batons.decoded(good.baton)
    second = resigned(table, replace(baton, record=replace(baton.record, seconds=0.5)), good.model)
    votes: dict[bytes, list[str]] = {good.baton: [], second.baton: []}
    for place, name in enumerate(NAMES):
        one, other = (good, second) if place % 2 else (second, good)
        for shown in (one, other):
            reply = table.all.peers[name].handle("ada", encode(VoteRequest(RUN, 1, 0, shown, grants, None)))
            if not refused(reply):
                votes[shown.baton].append(name)
        assert "passes a second baton at one turn" in table.told[name][-1]
    assert sorted(map(len, votes.values())) == [2, 3] and table.all.peers["bob"].circle.quorum == 4
    table.start()
    (settled,) = table.all.rounds()
    assert (settled.maker, settled.turn) == ("bob", 1)
    assert len(set(table.models().values())) == 1


@pytest.mark.attack("passing on another baton than the one that was voted for")
def test_whoever_acts_next_is_bound_to_what_a_quorum_voted_for() -> None:
    table = Table(rounds=1)
    good, grants = passed(table)
    words = []
    for name in NAMES:
        said = decode(table.all.peers[name].handle("ada", encode(VoteRequest(RUN, 1, 0, good, grants, None))), Said)
        words.append(Word(name, said.signature))
    votes = Certificate(0, name_of(good.baton), tuple(words))
    locked = ["cyd", "eve"]
    for name in locked:
        assert not refused(table.all.peers[name].handle("ada", encode(LockRequest(RUN, 1, votes))))
    # ada is gone. bob is dishonest: he makes a baton of his own, and passes it with the grants of all but the locked.
    table.start()
    found = given(table.all.peers["bob"], table.all.reach("bob"), 1)
    assert found.locked == tuple(locked) and found.votes == votes
    mine = Acting(table.all.peers["bob"], table.all.reach("bob"), table.together)._made(1, found)
    everyone = tuple(found.grants.values())
    free = tuple(grant for grant in everyone if grant.lock_turn < 0)
    for entitling, behind in ((free, None), (everyone, None), (everyone, votes)):
        asked = encode(VoteRequest(RUN, 1, 1, mine, entitling, behind))
        assert all(refused(table.all.peers[name].handle("bob", asked)) for name in NAMES)
    asked = encode(VoteRequest(RUN, 1, 1, good, everyone, votes))
    assert all(not refused(table.all.peers[name].handle("bob", asked)) for name in NAMES)


@pytest.mark.attack("rolling peers back to an older round")
def test_nothing_that_is_settled_is_taken_back() -> None:
    table = Table(rounds=3)
    rounds = table.all.rounds()
    next(rounds)
    first = table.all.peers["ada"].memory.settled(1)
    second_round = next(rounds)
    assert first is not None
    before = table.all.peers["cyd"].memory.standing
    for sender in ("eve", "ada"):
        reply = table.all.peers["cyd"].handle(sender, encode(TakeRequest(RUN, first)))
        assert refused(reply) or decode(reply, Taken).round == 2
    unlocked = Settled(
        Passed(*msgspec.structs.astuple(first.passed)), replace(first.locks, words=first.locks.words[:3])
    )
    assert refused(table.all.peers["cyd"].handle("eve", encode(TakeRequest(RUN, unlocked))))
    assert table.all.peers["cyd"].memory.standing == before and second_round.record.round == 2


@pytest.mark.attack("handing over a settled baton without its model")
def test_a_baton_that_came_without_its_model_is_completed() -> None:
    table = Table(rounds=2)
    rounds = table.all.rounds()
    peers = table.all.peers
    # eve hands bob, who acts next, the settled baton before ada does, and without the model.
    original = peers["bob"].handle

    def early(sender: str, request: bytes) -> bytes:
        if kind(request) == TakeRequest.KIND:
            settled = decode(request, TakeRequest).settled
            original("eve", encode(TakeRequest(RUN, replace(settled, passed=replace(settled.passed, model=b"")))))
            peers["bob"].memory.complete(b"")
            return encode(Refusal("protocol"))
        return original(sender, request)

    peers["bob"].handle = early  # type: ignore[method-assign]
    next(rounds)
    peers["bob"].handle = original  # type: ignore[method-assign]
    assert not peers["bob"].whole
    assert next(rounds).maker == "bob"
    assert peers["bob"].whole and len(set(table.models().values())) == 1


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
    assert len(set(table.models().values())) == 1


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
        answer = table.disks and None
        if kind(request) == TurnRequest.KIND and sender == "bob":
            true = decode(eve.handle(sender, request), TurnReply)
            return encode(replace(true, handed=b"\0" * 32))
        if kind(request) == kind_of_sum():
            true_sum = decode(eve.handle(sender, request), Sum)
            assert true_sum.handed is not None
            altered = replace(decode(true_sum.handed.request, ApplyRequest), total=b"\0" * 32)
            return encode(Sum(replace(true_sum.handed, request=encode(altered))))
        return answer

    eve = table.all.peers["eve"]
    lying(table, "eve", lie)
    (settled,) = table.all.rounds()
    assert settled.maker == "bob" and settled.record.contributors == NAMES and not settled.record.void


def kind_of_sum() -> int:
    from securefl.peers.messages import SumRequest

    return SumRequest.KIND


def test_whatever_bytes_come_are_refused() -> None:
    table = Table()
    for request in (b"", b"SF\x01", encode(FetchRequest(RUN, 1))[:-1], encode(FetchRequest("another", 1))):
        assert refused(table.all.peers["ada"].handle("eve", request))
    assert decode(table.all.peers["ada"].handle("eve", encode(FetchRequest(RUN, 1))), Fetched) == Fetched(None, None)


def unused(requests: Messages) -> Replies:
    return ()
