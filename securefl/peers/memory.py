"""What one peer keeps of a run between processes: how far it is settled, and what it has said about the next round.

Everything is on disk before it is said. What belongs to one round is kept with the round's number, and counts for
nothing once that round is settled.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from securefl.checkpoint import State
from securefl.errors import NotARun
from securefl.peers.baton import Baton, Standing, decoded, name_of
from securefl.peers.circle import Circle
from securefl.peers.messages import Began, Certificate, Handed, Passed, Settled
from securefl.store import Store

T = TypeVar("T")

_STANDING = "peers: standing"
_OPEN = "peers: open round"


class Candidate(Struct, frozen=True, array_like=True):
    """A baton that this peer voted for, at a turn."""

    turn: int
    passed: Passed


class Locked(Struct, frozen=True, array_like=True):
    """A baton that a quorum voted for, with its votes: what this peer names to whoever acts next."""

    votes: Certificate
    passed: Passed


class Open(Struct, frozen=True, array_like=True):
    """What a peer has said and was shown of a round that is not settled. ``turn``: the latest that it gave; -1: none.

    ``began``: of the session that it joined last.
    """

    round: int
    turn: int = -1
    candidate: Candidate | None = None
    locked: Locked | None = None
    handed: Handed | None = None
    began: Began | None = None


class Memory:
    """In a store that is the peer's own."""

    def __init__(self, store: Store, circle: Circle, first: State) -> None:
        """``first``: the server's state before the first round. Raises ``NotARun`` for what cannot be read."""
        self._store = store
        beginning = Standing(0, circle.start, first)
        self.standing = _loaded(store.get(_STANDING), Standing) or beginning
        self._open = _loaded(store.get(_OPEN), Open) or Open(1)
        if self.standing.round == 0:
            self._store.put({_STANDING: msgspec.msgpack.encode(self.standing)})

    @property
    def next(self) -> Open:
        """The round that comes after the last settled one, as far as it has got here."""
        number = self.standing.round + 1
        return self._open if self._open.round == number else Open(number)

    def note(self, **changes: object) -> None:
        """Change what is known of the next round; on disk when it returns."""
        self._open = replace(self.next, **changes)
        self._store.put({_OPEN: msgspec.msgpack.encode(self._open)})

    def settle(self, settled: Settled, after: Standing) -> None:
        """Go on from a baton that is settled. Its model is kept with the standing, and not a second time."""
        kept = replace(settled, passed=replace(settled.passed, model=b""))
        values = {_name(after.round): msgspec.msgpack.encode(kept), _STANDING: msgspec.msgpack.encode(after)}
        self._store.put(values)
        self.standing = after

    def complete(self, model: bytes) -> None:
        """Fill in the model of the last settled round, where its baton came without."""
        self.standing = replace(self.standing, state=replace(self.standing.state, model=model))
        self._store.put({_STANDING: msgspec.msgpack.encode(self.standing)})

    def settled(self, round: int) -> Settled | None:
        """The baton of a round, with the model if it is the last one; None where it is not settled here."""
        kept = _loaded(self._store.get(_name(round)), Settled) if round <= self.standing.round else None
        if kept is None or round < self.standing.round:
            return kept
        return replace(kept, passed=replace(kept.passed, model=self.standing.state.model))

    def batons(self) -> list[Baton]:
        """All that are settled, in order."""
        found = (self.settled(number) for number in range(1, self.standing.round + 1))
        return [decoded(settled.passed.baton) for settled in found if settled is not None]

    def model_of(self, baton: bytes) -> bytes:
        """The model that came with a baton when it was voted on or locked; empty where it did not."""
        known = self.shown(name_of(baton))
        return b"" if known is None else known.model

    def shown(self, name: bytes) -> Passed | None:
        """The baton of this name, if it is one of the next round that this peer voted for or locked."""
        known = [held.passed for held in (self.next.candidate, self.next.locked) if held is not None]
        return next((passed for passed in known if name_of(passed.baton) == name), None)


def _name(round: int) -> str:
    return f"peers: baton {round}"


def _loaded(stored: bytes | None, kind: type[T]) -> T | None:
    try:
        return None if stored is None else msgspec.msgpack.decode(stored, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotARun("what this peer stored of the run cannot be read: restore its folder from a backup") from error
