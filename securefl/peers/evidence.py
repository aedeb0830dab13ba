"""What an acting peer keeps of the messages that pass through it: signed words that show how its round came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from protocols.aggregation.messages import Envelope, Signed
from protocols.aggregation.session import Roster, Step
from protocols.base import Exchange, Messages
from protocols.errors import ProtocolError
from protocols.wire import decode
from securefl.peers.baton import Start


@dataclass
class Evidence:
    """Of one attempt: the one whose messages came last. ``starting``: model tag and key that the server announces now;
    ``longest``: bytes of a reply that may be an input.
    """

    roster: Roster
    longest: int
    starting: Callable[[], Start]
    start: Start | None = None
    shown: dict[str, Envelope] = field(default_factory=dict)
    _inputs: dict[str, Signed] = field(default_factory=dict)
    _session: bytes = b""

    def watching(self, exchange: Exchange) -> Exchange:
        """The same exchange."""

        def watched(requests: Messages) -> Iterator[tuple[str, bytes]]:
            for client, reply in exchange(requests):
                self._look(client, reply)
                yield client, reply

        return watched

    def inputs(self, contributors: Sequence[str]) -> tuple[Signed, ...]:
        """The signed headers of their inputs."""
        return tuple(self._inputs[name] for name in contributors)

    def _look(self, client: str, reply: bytes) -> None:
        if len(reply) > self.longest:
            return
        try:
            envelope = decode(reply, Envelope)
            if not any(envelope.signed.says(step) for step in (Step.KEYS, Step.INPUT)):
                return
            header = envelope.signed.authenticate(self.roster)
        except ProtocolError:
            return
        if header.sender != client:
            return
        if header.step == Step.KEYS:
            self._begin(header.session)
            self.shown[client] = envelope
        elif header.step == Step.INPUT and header.session == self._session:
            self._inputs[client] = envelope.signed

    def _begin(self, session: bytes) -> None:
        if session != self._session:
            self._session, self.start = session, self.starting()
            self.shown.clear()
            self._inputs.clear()
