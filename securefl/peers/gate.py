"""Which requests of the protocol reach a peer's client: those of the peer that it gave the turn, and none that take it
further than that turn.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

from protocols.aggregation.apply import sum_digest
from protocols.aggregation.messages import ApplyRequest, Envelope, KeysRequest, Refusal
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.wire import decode, encode, kind
from securefl import protection
from securefl.announcement import Announcement, public_tag
from securefl.closing import EndorseRequest, StateRequest
from securefl.errors import Refused
from securefl.named_run import named_run
from securefl.peers.baton import Standing
from securefl.peers.circle import Circle
from securefl.peers.memory import Memory, Open
from securefl.peers.messages import Began, Handed
from securefl.peers.turns import turn_of
from securefl.server import Server

_AFTER_THE_LAST: Final = frozenset(
    request.KIND
    for request in (
        StateRequest,
        EndorseRequest,
        JoinRequest,
        ShareKeyRequest,
        ReceiveKeyRequest,
        SealModelRequest,
        InstallModelRequest,
    )
)


class Answering(Protocol):
    """A client, by its one verb."""

    @property
    def name(self) -> str: ...

    def handle(self, request: bytes) -> bytes: ...


class Gate:
    """Of one peer. ``one_at_a_time``: held between what is read from the memory and what is written to it."""

    def __init__(
        self,
        client: Answering,
        server: Server,
        circle: Circle,
        memory: Memory,
        one_at_a_time: AbstractContextManager[bool],
    ) -> None:
        self._client = client
        self._server = server
        self._circle = circle
        self._memory = memory
        self._one_at_a_time = one_at_a_time
        self._sealed = protection.protection_of(circle.plan).sealed

    def pass_on(self, sender: str, request: bytes) -> bytes:
        """The client's answer, to whoever has the turn; after the last round, to all who end the run.

        Raises ``Refused`` for what is asked of another run: who has the turn in this one has it in no other.
        """
        if (named := named_run(request)) not in (None, self._circle.run):
            raise Refused(f"{sender} asks for something of run {str(named)[:80]!r}, and this is {self._circle.run!r}")
        settled = self._memory.standing.round
        if settled >= self._circle.plan.rounds:
            if kind(request) not in _AFTER_THE_LAST:
                raise Refused(f"{sender} asks for more than the plan's {self._circle.plan.rounds} rounds")
            return self._client.handle(request)
        with self._one_at_a_time:
            open = self._memory.next
            if open.turn < 0 or sender != self._circle.acting(open.round, open.turn):
                raise Refused(f"{sender} acts as the server, and this peer gave it no turn in round {open.round}")
            match kind(request):
                case StateRequest.KIND | EndorseRequest.KIND:
                    raise Refused(f"{sender} would end the run, of which {settled} rounds are settled")
                case KeysRequest.KIND:
                    self._check_announced(Announcement.decoded(decode(request, KeysRequest).announcement), open)
                case ApplyRequest.KIND:
                    return self._handed_down(request, open)
        return self._client.handle(request)  # which may take long, to train

    def _check_announced(self, announced: Announcement, open: Open) -> None:
        """That the round is the one whose turn was given, and builds on what is settled."""
        if (announced.run, announced.round) != (self._circle.run, open.round):
            raise Refused(
                f"round {announced.round} of run {announced.run!r} is announced: the turn is round {open.round}'s"
            )
        if turn_of(announced.attempt) != open.turn:
            raise Refused(f"attempt {announced.attempt} of round {open.round} is not one of turn {open.turn}")
        if self._sealed:  # each client compares the tag with its own model's
            self._memory.note(began=Began(announced.tag, announced.key_id, announced.evidence))
        elif public_tag(announced.model, announced.memory) != self._memory.standing.state.tag:
            raise Refused(f"round {open.round} is announced with another model than the one that is settled")

    def _handed_down(self, request: bytes, open: Open) -> bytes:
        """A sum is kept before the client agrees to it: whoever acts next hands it out again, and forms no other.

        It takes the place of another only once the client has signed that it agreed to this one: a client agrees to one
        sum a round, so that the other was none of its. After that it answers anything with the same bytes.
        """
        known, coming = open.handed, Handed(request, open.began or _began(self._memory.standing))
        if known is None:
            self._memory.note(handed=coming)
        reply = self._client.handle(request)
        agreed = _agrees(reply, request)
        if agreed and known is not None and known.request != request:
            self._memory.note(handed=coming)
        elif not agreed and known is None:
            self._memory.note(handed=None)
        return reply

    @property
    def handed(self) -> Handed | None:
        """The sum of the next round that this peer was handed, or that it formed itself before it stopped."""
        state, standing = self._server.state, self._memory.standing
        pending, known = state.pending, self._memory.next.handed
        if known is None and pending is not None and pending.round == standing.round + 1:
            return Handed(encode(pending), Began(state.tag, state.key_id, state.evidence))
        return known


def _agrees(reply: bytes, request: bytes) -> bool:
    """Whether this client's answer names the very sum that it was handed."""
    if kind(reply) == Refusal.KIND:
        return False
    return decode(reply, Envelope).parts == (sum_digest(decode(request, ApplyRequest)),)


def _began(standing: Standing) -> Began:
    state = standing.state
    return Began(state.tag, state.key_id, state.evidence)
