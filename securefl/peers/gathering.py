"""How a peer gets its turn: it asks all whether it is time, then for the turn, and learns how far they are.

A peer that says that it is behind, and takes up nothing, could use up the turn: where a quorum is there without it, it
gets one short try before the round, and patience after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocols.base import Exchange
from protocols.errors import ProtocolError
from securefl.errors import RoundFailed
from securefl.peers import grants
from securefl.peers.asking import ask
from securefl.peers.messages import (
    Certificate,
    Fetched,
    FetchRequest,
    Grant,
    Taken,
    TakeRequest,
    TurnReply,
    TurnRequest,
    Word,
)
from securefl.peers.peer import Peer


class Overtaken(Exception):
    """Others are further on. This peer has caught up with them, and it is another round's turn."""


class NotGiven(RoundFailed):
    """It is not time for this turn. ``reached``: a turn that an honest peer has given at least; -1 for none."""

    reached: int = -1


@dataclass(frozen=True)
class Given:
    """A quorum's grants of a turn, by peer; ``certificates``: the votes behind the lock that a grant names; ``handed``:
    by which each says which sum it was handed; ``behind``: who is not at this round, with the last that it has.
    """

    grants: Mapping[str, Grant]
    certificates: Mapping[str, Certificate]
    handed: Mapping[str, bytes]
    behind: Mapping[str, int]

    @property
    def locked(self) -> tuple[str, ...]:
        """Who names the latest lock."""
        latest = max(grant.lock_turn for grant in self.grants.values())
        return tuple(sorted(name for name, grant in self.grants.items() if grant.lock_turn == latest >= 0))

    @property
    def votes(self) -> Certificate | None:
        """Those behind the latest lock; None where there is none."""
        return next((self.certificates[name] for name in self.locked), None)

    def without(self, names: Sequence[str]) -> Given:
        """The same, as if these had not answered."""
        grants = {name: grant for name, grant in self.grants.items() if name not in names}
        certificates = {name: votes for name, votes in self.certificates.items() if name not in names}
        return Given(grants, certificates, {name: self.handed[name] for name in grants}, self.behind)


def given(peer: Peer, reach: Exchange, soon: Exchange, turn: int, least: int = 0) -> Given:
    """The turn in the next round, if a quorum and as many as ``least`` give it. ``soon``: the same exchange as
    ``reach``, of which nobody can make more than a small part of a turn's time.

    Raises ``NotGiven`` where they do not, ``Overtaken`` if the round is settled already.
    """
    circle, number, needed = peer.circle, peer.round + 1, max(peer.circle.quorum, least)
    question = TurnRequest(circle.run, number, turn)
    replies = dict(ask(soon, circle.plan.clients, question, TurnReply))
    behind = {name: reply.round for name, reply in replies.items() if reply.round < peer.round}
    if sum(reply.round == peer.round for reply in replies.values()) < max(needed, circle.plan.minimum):
        _catch_up(peer, reach, replies)
        for name, theirs in behind.items():
            bring_up(peer, reach, name, theirs)
    else:
        _bring_up_soon(peer, soon, behind)
    replies |= ask(soon, behind, question, TurnReply)
    words = _due(peer, turn, replies)
    if len(words) < needed:
        raise _not_given(peer, turn, replies, words, needed)
    there = [name for name, reply in replies.items() if reply.round == peer.round]
    answers = ask(soon, there, TurnRequest(circle.run, number, turn, tuple(words.values())), TurnReply)
    return _counted(peer, turn, answers, {name: at for name, at in behind.items() if name not in there}, needed)


def bring_all_up(peer: Peer, reach: Exchange) -> None:
    """Hand everybody who is behind what is settled."""
    how_far = TurnRequest(peer.circle.run, 0, 0)
    for name, reply in ask(reach, peer.circle.plan.clients, how_far, TurnReply).items():
        bring_up(peer, reach, name, reply.round)


def bring_up(peer: Peer, reach: Exchange, name: str, theirs: int) -> None:
    """Hand a peer that is at round ``theirs`` the batons that it lacks, one after the other."""
    for number in range(theirs + 1, peer.round + 1):
        settled = peer.memory.settled(number)
        if settled is None or not ask(reach, [name], TakeRequest(peer.circle.run, settled), Taken):
            return


def catch_up_with(peer: Peer, reach: Exchange, name: str) -> None:
    """Take over what a peer has that this one lacks, as far as it can show it."""
    while not peer.over:
        found = ask(reach, [name], FetchRequest(peer.circle.run, peer.round + 1), Fetched).get(name)
        if found is None or found.settled is None:
            return
        try:
            peer.take(found.settled)
        except ProtocolError:
            return  # it says that it is further, and is not


def complete(peer: Peer, reach: Exchange) -> None:
    """Get the model of the last settled round, if its baton came without. Raises ``RoundFailed`` if nobody has it."""
    asked = FetchRequest(peer.circle.run, peer.round)
    for name in peer.circle.plan.clients:
        if peer.whole:
            return
        found = ask(reach, [name], asked, Fetched).get(name)
        if found is not None and found.settled is not None:
            try:
                peer.take(found.settled)
            except ProtocolError:
                continue
    if not peer.whole:
        raise RoundFailed(f"nobody who was reached has the model of round {peer.round}: resume once more are back")


def _catch_up(peer: Peer, reach: Exchange, replies: Mapping[str, TurnReply]) -> None:
    """With those who are further: first with whom most others are."""
    before, rounds = peer.round, {name: reply.round for name, reply in replies.items()}
    alike = Counter(rounds.values())
    for name in sorted(rounds, key=lambda name: (-alike[rounds[name]], name)):
        if rounds[name] > peer.round:
            catch_up_with(peer, reach, name)
    if peer.round > before:
        raise Overtaken


def _bring_up_soon(peer: Peer, soon: Exchange, behind: Mapping[str, int]) -> None:
    """One short try with those who lack one round: for them the turn does not wait."""
    last = peer.memory.settled(peer.round)
    if last is not None:
        lacking = [name for name, theirs in behind.items() if theirs == peer.round - 1]
        ask(soon, lacking, TakeRequest(peer.circle.run, last), Taken)


def _due(peer: Peer, turn: int, replies: Mapping[str, TurnReply]) -> Mapping[str, Word]:
    """Who says that it is time for the turn, with their words."""
    circle, standing = peer.circle, peer.memory.standing
    found: dict[str, Word] = {}
    for name, reply in sorted(replies.items()):
        try:
            if reply.round == standing.round and reply.due is not None and reply.due.sender == name:
                grants.check_word(circle, standing, turn, reply.due)
                found[name] = reply.due
        except ProtocolError:
            continue
    return found


def _not_given(
    peer: Peer, turn: int, replies: Mapping[str, TurnReply], by: Mapping[str, object], needed: int
) -> NotGiven:
    circle, number = peer.circle, peer.round + 1
    silent = {name: "gave no turn" for name in circle.plan.clients if name not in by}
    error = NotGiven(
        f"{len(by)} peers gave {peer.name} turn {turn} of round {number}, and {needed} are needed. "
        f"Lost: {', '.join(silent)}. The model is unchanged.",
        silent,
    )
    turns = (reply.turn for name, reply in replies.items() if name != peer.name and reply.round == number - 1)
    error.reached = next(iter(sorted(turns, reverse=True)[circle.plan.colluders :]), -1)
    return error


def _counted(peer: Peer, turn: int, replies: Mapping[str, TurnReply], behind: Mapping[str, int], needed: int) -> Given:
    circle, standing = peer.circle, peer.memory.standing
    valid: dict[str, Grant] = {}
    for name, reply in replies.items():
        try:
            if reply.grant is not None and reply.grant.sender == name:
                grants.check(circle, standing, turn, reply.grant, reply.votes)
                valid[name] = reply.grant
        except ProtocolError:
            continue
    if len(valid) < needed:
        raise _not_given(peer, turn, replies, valid, needed)
    votes = {name: replies[name].votes for name in valid}
    certificates = {name: found for name, found in votes.items() if found is not None}
    return Given(valid, certificates, {name: replies[name].handed for name in valid}, behind)
