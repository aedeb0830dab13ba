"""Batons that are not what came of a round, two of them at once, and older ones: none of them is settled."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import Refusal
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl.announcement import public_tag
from securefl.global_state import Measured
from securefl.peers import baton as batons
from securefl.peers.acting import Acting
from securefl.peers.baton import Baton, Start, name_of
from securefl.peers.gathering import given
from securefl.peers.messages import (
    Certificate,
    Grant,
    LockRequest,
    Passed,
    Said,
    Settled,
    Taken,
    TakeRequest,
    VoteRequest,
    Word,
)
from tests.securefl.federation import NAMES, RUN
from tests.securefl.peers.circles import Table, refused


def passed(table: Table, maker: str = "ada") -> tuple[Passed, tuple[Grant, ...]]:
    """A good baton of round 1, made by ada, and the grants behind her turn; nobody has seen it yet."""
    acting = Acting(table.all.peers[maker], table.all.reach(maker), table.together)
    found = given(table.all.peers[maker], table.all.reach(maker), table.all.reach(maker), 0)
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
    state = replace(baton.state, outcome=replace(outcome, contributors=()), counts={})
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


def with_state(**changes: object) -> Change:
    """Another state that the next server would go on from."""

    def change(table: Table, baton: Baton, good: Passed) -> Passed:
        return resigned(table, replace(baton, state=replace(baton.state, **changes)), good.model)

    change.__name__ = f"with_state({changes})"
    return change


def with_record(**changes: object) -> Change:
    """Another record, of which the state says the same."""

    def change(table: Table, baton: Baton, good: Passed) -> Passed:
        record = replace(baton.record, **changes)
        state = replace(baton.state, outcome=batons.outcome_of(record))
        return resigned(table, replace(baton, state=state, record=record), good.model)

    change.__name__ = f"with_record({changes})"
    return change


def with_crossing(**changes: object) -> Change:
    """Another transcript."""

    def change(table: Table, baton: Baton, good: Passed) -> Passed:
        first, *others = baton.crossings
        return resigned(table, replace(baton, crossings=(replace(first, **changes), *others)), good.model)

    change.__name__ = f"with_crossing({changes})"
    return change


def with_a_transcript_without_end(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, crossings=baton.crossings[:1] * 1001), good.model)


def with_keys_without_end(table: Table, baton: Baton, good: Passed) -> Passed:
    return resigned(table, replace(baton, shown=baton.shown * 2), good.model)


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
    with_state(attempt=2**50),
    with_state(attempt=1),
    with_state(key_round=1),
    with_state(key_round=-1),
    with_state(key_id=b"key"),
    with_state(counts={"ada": 2**60}),
    with_state(counts={}),
    with_state(behind=("mallory",)),
    with_state(behind=("bob", "bob")),
    with_state(outcome=None),
    with_record(round=2),
    with_record(seconds=float("nan")),
    with_record(seconds=float("inf")),
    with_record(seconds=-1.0),
    with_record(epsilon={"eve": float("nan")}),
    with_record(upload_bytes={"\x1b[2Jstranger": 1}),
    with_record(download_bytes={"mallory": 1}),
    with_record(download_bytes={"eve": -1}),
    with_record(recovered=("mallory",)),
    with_record(recovered=("eve",) * 6),
    with_record(held_out=Measured(float("nan"), 0.5)),
    with_record(held_out=Measured(0.5, float("inf"))),
    with_crossing(kind="\x1b[2J"),
    with_crossing(direction="sideways"),
    with_crossing(sha256="0" * 63 + "\n"),
    with_crossing(bytes=-1),
    with_crossing(client="mallory"),
    with_a_transcript_without_end,
    with_keys_without_end,
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


@pytest.mark.attack("a baton with the model of the round before, under CKKS")
def test_what_key_holders_said_of_the_round_before_is_no_word_for_this_one() -> None:
    table = Table("ckks", rounds=2)
    next(table.all.rounds())
    before = table.all.peers["cyd"].memory.standing.state
    bob, reach = table.all.peers["bob"], table.all.reach("bob")
    found = given(bob, reach, reach, 0)
    good = Acting(bob, reach, table.together)._made(0, found)
    baton = batons.decoded(good.baton)
    assert baton.state.key_id == before.key_id
    for state in (
        replace(baton.state, tag=before.tag, evidence=before.evidence),
        replace(baton.state, evidence=(*baton.state.evidence[:-1], before.evidence[0])),
        replace(baton.state, key_round=1),
        replace(baton.state, key_id=bytes(32)),
    ):
        bad = bob.sign(replace(baton, state=state), b"")
        asked = encode(VoteRequest(RUN, 2, 0, bad, tuple(found.grants.values()), None))
        assert all(refused(table.all.peers[name].handle("bob", asked)) for name in NAMES)
    asked = encode(VoteRequest(RUN, 2, 0, good, tuple(found.grants.values()), None))
    assert all(not refused(table.all.peers[name].handle("bob", asked)) for name in NAMES)


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
    found = given(table.all.peers["bob"], table.all.reach("bob"), table.all.reach("bob"), 1)
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
