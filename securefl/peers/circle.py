"""The peers of one run, and what binds every signed word of theirs to it.

A word is an Ed25519 signature by a member's pinned identity over what it is for, the run, the plan, the roster, a round
and a turn. A quorum of equal words is more than (n + n_C) / 2: two of them have an honest peer in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from protocols.aggregation.session import Roster
from protocols.errors import Inconsistent
from protocols.primitives import Identity, digest, verify
from securefl.errors import Refused
from securefl.peers.messages import Word
from securefl.peers.turns import acting
from securefl.plan import Plan

What = Literal["due", "turn", "vote", "lock", "baton"]


@dataclass(frozen=True)
class Circle:
    """Raises ``Refused`` for a plan that promises nothing about an acting server, which is one of the clients."""

    run: str
    plan: Plan
    roster: Roster

    def __post_init__(self) -> None:
        if self.plan.colluders < 1:
            raise Refused(
                "the plan counts on no client that works with the server (colluders = 0), and here the server is one "
                "of the clients: ask for a plan with colluders = 1 or more"
            )
        if sorted(self.roster.keys) != list(self.plan.clients):
            raise Refused("the plan names other clients than the roster: get both anew from whoever proposes the run")

    @property
    def quorum(self) -> int:
        """How many equal words bind all peers."""
        return (len(self.plan.clients) + self.plan.colluders) // 2 + 1

    @cached_property
    def start(self) -> bytes:
        """What stands for the baton before the first."""
        return digest("peers", self.run.encode(), self.plan.digest(), self.roster.digest)

    def acting(self, round: int, turn: int) -> str:
        return acting(self.plan.clients, round, turn)

    def sign(self, identity: Identity, what: What, round: int, turn: int, *about: bytes) -> bytes:
        """A word's signature."""
        return identity.sign(self._bound(what, round, turn, about))

    def check(self, sender: str, signature: bytes, what: What, round: int, turn: int, *about: bytes) -> None:
        """Raises ``Forged`` or ``Inconsistent`` unless a member said exactly that."""
        verify(self.roster.public_key(sender), signature, self._bound(what, round, turn, about), sender)

    def check_quorum(self, words: Sequence[Word], what: What, round: int, turn: int, *about: bytes) -> None:
        """Raises ``Forged`` or ``Inconsistent`` unless a quorum of members said exactly that."""
        senders = {word.sender for word in words}
        if len(senders) != len(words) or len(senders) < self.quorum:
            raise Inconsistent(f"{len(senders)} peers said so, {self.quorum} are needed")
        for word in words:
            self.check(word.sender, word.signature, what, round, turn, *about)

    def _bound(self, what: What, round: int, turn: int, about: Sequence[bytes]) -> bytes:
        place = (round.to_bytes(8, "big"), turn.to_bytes(8, "big"))
        return digest(f"peer's {what}", self.start, *place, *about)
