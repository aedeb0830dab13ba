"""What an acting peer keeps of the messages that pass through it: signed words that show how its round came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from protocols.aggregation.messages import Envelope, KeysRequest, Signed
from protocols.aggregation.session import Step
from protocols.base import Exchange, Messages
from protocols.errors import ProtocolError
from protocols.wire import decode, kind
from securefl.announcement import terms
from securefl.checkpoint import State
from securefl.errors import RoundFailed
from securefl.peers.baton import Start
from securefl.peers.circle import Circle


@dataclass
class Evidence:
    """Of one attempt: the one that this peer's own server announced last, whatever clients sign in others. ``state``:
    that server's, as it is now; ``longest``: bytes of a reply that may be an input.
    """

    circle: Circle
    longest: int
    state: Callable[[], State]
    start: Start | None = None
    shown: dict[str, Envelope] = field(default_factory=dict)
    _inputs: dict[str, Signed] = field(default_factory=dict)
    _session: bytes = b""

    def starting(self) -> Start:
        """Model tag and key that the server announces now."""
        state = self.state()
        return Start(state.tag, state.key_id)

    def watching(self, exchange: Exchange) -> Exchange:
        """The same exchange."""

        def watched(requests: Messages) -> Iterator[tuple[str, bytes]]:
            first = next(iter(requests), None)
            if first is not None and kind(requests[first]) == KeysRequest.KIND:
                self._begin()
            for client, reply in exchange(requests):
                self._look(client, reply)
                yield client, reply

        return watched

    def inputs(self, contributors: Sequence[str]) -> tuple[Signed, ...]:
        """The signed headers of their inputs. Raises ``RoundFailed`` where one is missing."""
        lost = {name: "its signed input is missing" for name in contributors if name not in self._inputs}
        if lost:
            raise RoundFailed(
                f"the signed inputs of {', '.join(lost)} are missing: nobody would vote for such a round. It is tried "
                "again at the next turn.",
                lost,
            )
        return tuple(self._inputs[name] for name in contributors)

    def _begin(self) -> None:
        """A session: what belonged to the one before is of no use any more."""
        circle, state = self.circle, self.state()
        self.start = self.starting()
        number, attempt = state.round + 1, state.attempt
        agreed = terms(circle.plan, circle.roster, circle.run, number, attempt, state.tag, state.key_id)
        self._session = agreed.session
        self.shown.clear()
        self._inputs.clear()

    def _look(self, client: str, reply: bytes) -> None:
        if len(reply) > self.longest:
            return
        try:
            envelope = decode(reply, Envelope)
            if not any(envelope.signed.says(step) for step in (Step.KEYS, Step.INPUT)):
                return
            header = envelope.signed.authenticate(self.circle.roster)
        except ProtocolError:
            return
        if (header.sender, header.session) != (client, self._session):
            return
        if header.step == Step.KEYS:
            self.shown.setdefault(client, envelope)
        elif header.step == Step.INPUT:
            self._inputs[client] = envelope.signed
