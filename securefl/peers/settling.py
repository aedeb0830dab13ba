"""How a round is settled: a quorum votes for the baton, a quorum locks it, and then everybody takes it."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.base import Exchange
from protocols.errors import ProtocolError
from protocols.wire import Message
from securefl.errors import RoundFailed
from securefl.peers.asking import ask
from securefl.peers.baton import name_of
from securefl.peers.circle import What
from securefl.peers.gathering import Given
from securefl.peers.messages import (
    Certificate,
    LockRequest,
    Passed,
    Said,
    Settled,
    Taken,
    TakeRequest,
    VoteRequest,
    Word,
)
from securefl.peers.peer import Peer


def settle(peer: Peer, reach: Exchange, turn: int, given: Given, passed: Passed) -> None:
    """Have a baton of the next round settled. Raises ``RoundFailed`` where no quorum votes for it, or locks it."""
    circle, number, about = peer.circle, peer.round + 1, name_of(passed.baton)
    words = _Words(peer, reach, sorted(given.grants), number, turn, about)
    question = VoteRequest(circle.run, number, turn, passed, tuple(given.grants.values()), given.votes)
    votes = words.collect("vote", question)
    locks = words.collect("lock", LockRequest(circle.run, number, votes))
    settled = Settled(passed, locks)
    # Itself first: a crash from here on leaves somebody who can hand it to the others.
    peer.take(settled)
    ask(reach, [name for name in sorted(given.grants) if name != peer.name], TakeRequest(circle.run, settled), Taken)


class _Words:
    """Those of the peers who gave the turn: others are not waited for, and brought up at the next turn."""

    def __init__(self, peer: Peer, reach: Exchange, asked: Sequence[str], number: int, turn: int, about: bytes) -> None:
        self._peer, self._reach, self._asked = peer, reach, asked
        self._number, self._turn, self._about = number, turn, about

    def collect(self, what: What, question: Message) -> Certificate:
        """A quorum's words."""
        circle = self._peer.circle
        words = []
        for name, said in sorted(ask(self._reach, self._asked, question, Said).items()):
            try:
                circle.check(name, said.signature, what, self._number, self._turn, self._about)
            except ProtocolError:
                continue
            words.append(Word(name, said.signature))
        if len(words) < circle.quorum:
            there = {word.sender for word in words}
            lost = {name: f"no {what}" for name in circle.plan.clients if name not in there}
            raise RoundFailed(
                f"{len(words)} peers gave their {what} to what came of round {self._number}, {circle.quorum} must. "
                f"Lost: {', '.join(lost)}. It is tried again at the next turn.",
                lost,
            )
        return Certificate(self._turn, self._about, tuple(words))
