"""Who may act and pass on what: the turn is a quorum's to give, once a quorum says that it is time for it, and with it
comes what a quorum has voted for before.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocols.errors import Inconsistent
from protocols.primitives import Identity
from securefl.peers.baton import Standing
from securefl.peers.circle import Circle
from securefl.peers.messages import Certificate, Grant, Word


def due(circle: Circle, name: str, identity: Identity, standing: Standing, turn: int) -> Word:
    """A peer's word that it is time for the turn, which binds it to nothing: it may go on giving earlier ones."""
    return Word(name, circle.sign(identity, "due", standing.round + 1, turn, standing.digest))


def check_due(circle: Circle, standing: Standing, turn: int, words: Sequence[Word]) -> None:
    """Raises ``Forged`` or ``Inconsistent`` unless a quorum says that it is time for the turn."""
    circle.check_quorum(words, "due", standing.round + 1, turn, standing.digest)


def check_word(circle: Circle, standing: Standing, turn: int, word: Word) -> None:
    """Raises ``Forged`` or ``Inconsistent`` unless this peer says that it is time for the turn."""
    circle.check(word.sender, word.signature, "due", standing.round + 1, turn, standing.digest)


def grant(
    circle: Circle, name: str, identity: Identity, standing: Standing, turn: int, votes: Certificate | None
) -> Grant:
    """A peer's word that the turn in the round after ``standing`` is given; ``votes``: behind the lock that it has."""
    lock_turn, lock = (-1, b"") if votes is None else (votes.turn, votes.digest)
    signature = circle.sign(identity, "turn", standing.round + 1, turn, *_about(standing, lock_turn, lock))
    return Grant(name, lock_turn, lock, signature)


def check(circle: Circle, standing: Standing, turn: int, given: Grant, votes: Certificate | None) -> None:
    """Raises ``Forged`` or ``Inconsistent`` unless this peer gave the turn and a quorum voted for the lock it names."""
    about = _about(standing, given.lock_turn, given.lock)
    circle.check(given.sender, given.signature, "turn", standing.round + 1, turn, *about)
    if given.lock_turn < 0:
        return
    if votes is None or (votes.turn, votes.digest) != (given.lock_turn, given.lock):
        raise Inconsistent(f"{given.sender} names a lock without the votes for it")
    if votes.turn > turn:
        raise Inconsistent(f"{given.sender} names a lock of turn {votes.turn} at turn {turn}")
    circle.check_quorum(votes.words, "vote", standing.round + 1, votes.turn, votes.digest)


def entitled(
    circle: Circle, standing: Standing, turn: int, grants: Sequence[Grant], votes: Certificate | None
) -> Certificate | None:
    """The lock that binds whoever these grants give the turn to; None where there is none.

    Raises ``Forged`` or ``Inconsistent`` unless they are a quorum's, and ``votes`` are behind the latest lock in them.
    """
    if len({given.sender for given in grants}) != len(grants) or len(grants) < circle.quorum:
        raise Inconsistent(f"{len(grants)} peers gave the turn, {circle.quorum} are needed")
    latest = max(given.lock_turn for given in grants)
    for given in grants:
        if given.lock_turn == latest:
            check(circle, standing, turn, given, votes)
        else:
            about = _about(standing, given.lock_turn, given.lock)
            circle.check(given.sender, given.signature, "turn", standing.round + 1, turn, *about)
    return votes if latest >= 0 else None


def _about(standing: Standing, lock_turn: int, lock: bytes) -> tuple[bytes, ...]:
    return standing.digest, (lock_turn + 1).to_bytes(8, "big"), lock
