"""What crossed the wire, one entry a message: kind, size and hash, never the payload."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct

from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    InputRequest,
    KeysRequest,
    Refusal,
    SharesRequest,
    UnmaskRequest,
)
from protocols.base import Exchange, Messages, Replies
from protocols.delivery.messages import (
    CatchUpRequest,
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
)
from protocols.errors import MalformedMessage
from protocols.wire import kind

KINDS = {
    KeysRequest.KIND: "keys",
    SharesRequest.KIND: "shares",
    InputRequest.KIND: "masked-input",
    ConsistencyRequest.KIND: "consistency",
    UnmaskRequest.KIND: "unmask",
    ApplyRequest.KIND: "apply",
    JoinRequest.KIND: "join",
    MakeKeyRequest.KIND: "make-key",
    ReceiveKeyRequest.KIND: "receive-key",
    CatchUpRequest.KIND: "catch-up-request",
    SealModelRequest.KIND: "seal-model",
    InstallModelRequest.KIND: "install-model",
    Refusal.KIND: "refusal",
}


class Crossing(Struct, frozen=True):
    """One message. ``direction``: "up" from client to server, "down" the other way. A reply has its request's kind."""

    round: int
    kind: str
    direction: str
    client: str
    bytes: int
    sha256: str


class Transcript:
    """Counts bytes by client and hands each crossing to ``write``; round 0 is the set-up."""

    def __init__(self, write: Callable[[Crossing], None] = lambda crossing: None) -> None:
        self._write = write
        self.up: Counter[str] = Counter()
        self.down: Counter[str] = Counter()

    def count_anew(self) -> None:
        """Set the counters to zero, at the start of a round: all its attempts are counted."""
        self.up.clear()
        self.down.clear()

    def recording(self, exchange: Exchange, round: int) -> Exchange:
        """The same exchange, with every message written down as it passes."""

        def recorded(requests: Messages) -> Replies:
            for client, request in requests.items():
                self.down[client] += len(request)
                self._write(_crossing(round, _name(request), "down", client, request))
            return self._replies(exchange, requests, round)

        return recorded

    def _replies(self, exchange: Exchange, requests: Messages, round: int) -> Iterator[tuple[str, bytes]]:
        for client, reply in exchange(requests):
            self.up[client] += len(reply)
            refused = _name(reply) == KINDS[Refusal.KIND]
            asked = _name(reply if refused else requests[client])
            self._write(_crossing(round, asked, "up", client, reply))
            yield client, reply


def _crossing(round: int, kind: str, direction: str, client: str, data: bytes) -> Crossing:
    return Crossing(round, kind, direction, client, len(data), hashlib.sha256(data).hexdigest())


def _name(data: bytes) -> str:
    try:
        return KINDS.get(kind(data), "reply")
    except MalformedMessage:
        return "malformed"
