"""How a peer gets its turn: it asks all for it, learns how far they are, and brings who is behind up to date."""

from __future__ import annotations

from collections.abc import Mapping
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
)
from securefl.peers.peer import Peer


class Overtaken(Exception):
    """Others are further on. This peer has caught up with them, and it is another round's turn."""


@dataclass(frozen=True)
class Given:
    """A quorum's grants of a turn, by peer; ``votes``: behind the latest lock that any of them names, with those who
    name it; ``handed``: by which each says which sum it was handed.
    """

    grants: Mapping[str, Grant]
    votes: Certificate | None
    locked: tuple[str, ...]
    handed: Mapping[str, bytes]


def given(peer: Peer, reach: Exchange, turn: int, least: int = 0) -> Given:
    """The turn in the next round, if a quorum and as many as ``least`` give it.

    Raises ``RoundFailed`` where they do not, ``Overtaken`` if the round is settled already.
    """
    circle, number = peer.circle, peer.round + 1
    question = TurnRequest(circle.run, number, turn)
    replies = dict(ask(reach, circle.plan.clients, question, TurnReply))
    _catch_up(peer, reach, replies)
    behind = [name for name, reply in replies.items() if reply.round < number - 1]
    for name in behind:
        bring_up(peer, reach, name, replies[name].round)
    replies |= ask(reach, behind, question, TurnReply)
    there = {name: reply for name, reply in replies.items() if reply.round == number - 1}
    return _counted(peer, turn, there, max(circle.quorum, least))


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
    before = peer.round
    for name in sorted(replies, key=lambda name: -replies[name].round):
        if replies[name].round > peer.round:
            catch_up_with(peer, reach, name)
    if peer.round > before:
        raise Overtaken


def _counted(peer: Peer, turn: int, replies: Mapping[str, TurnReply], needed: int) -> Given:
    circle, standing = peer.circle, peer.memory.standing
    valid: dict[str, TurnReply] = {}
    for name, reply in replies.items():
        try:
            if reply.grant is not None and reply.grant.sender == name:
                grants.check(circle, standing, turn, reply.grant, reply.votes)
                valid[name] = reply
        except ProtocolError:
            continue
    if len(valid) < needed:
        silent = {name: "gave no turn" for name in circle.plan.clients if name not in valid}
        raise RoundFailed(
            f"{len(valid)} peers gave {peer.name} turn {turn} of round {standing.round + 1}, and {needed} are "
            f"needed. Lost: {', '.join(silent)}. The model is unchanged.",
            silent,
        )
    named = {name: reply.grant for name, reply in valid.items() if reply.grant is not None}
    latest = max(grant.lock_turn for grant in named.values())
    locked = tuple(sorted(name for name, grant in named.items() if grant.lock_turn == latest >= 0))
    votes = valid[locked[0]].votes if locked else None
    return Given(named, votes, locked, {name: reply.handed for name, reply in valid.items()})
