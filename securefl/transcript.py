"""What crossed the wire, one entry a message: kind, size and hash, never the payload."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    DecryptRequest,
    InputRequest,
    KeysRequest,
    Refusal,
    SharesRequest,
    UnmaskRequest,
)
from protocols.base import Exchange, Messages, Replies, Requests
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.errors import MalformedMessage
from protocols.wire import kind

KINDS = {
    KeysRequest.KIND: "keys",
    SharesRequest.KIND: "shares",
    InputRequest.KIND: "masked-input",
    ConsistencyRequest.KIND: "consistency",
    UnmaskRequest.KIND: "unmask",
    ApplyRequest.KIND: "sum",
    DecryptRequest.KIND: "apply",
    JoinRequest.KIND: "join",
    MakeKeyRequest.KIND: "make-key",
    ReceiveKeyRequest.KIND: "receive-key",
    ShareKeyRequest.KIND: "share-key",
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

    def count(self, crossings: Iterable[Crossing]) -> None:
        """Count what was written down before, by a process that is gone."""
        for crossing in crossings:
            (self.up if crossing.direction == "up" else self.down)[crossing.client] += crossing.bytes

    def recording(self, exchange: Exchange, round: int) -> Exchange:
        """The same exchange, with every message written down as it passes."""

        def recorded(requests: Messages) -> Replies:
            asked: dict[str, str] = {}

            def passing(client: str) -> bytes:
                request = requests[client]
                if client not in asked:  # read once by most engines; written down once for all
                    asked[client] = _name(request)
                    self.down[client] += len(request)
                    self._write(_crossing(round, asked[client], "down", client, request))
                return request

            return self._replies(exchange(Requests(list(requests), passing)), asked, round)

        return recorded

    def _replies(self, replies: Replies, asked: Mapping[str, str], round: int) -> Iterator[tuple[str, bytes]]:
        for client, reply in replies:
            self.up[client] += len(reply)
            refused = _name(reply) == KINDS[Refusal.KIND]
            kind = _name(reply) if refused else asked.get(client, "unasked")
            self._write(_crossing(round, kind, "up", client, reply))
            yield client, reply


def _crossing(round: int, kind: str, direction: str, client: str, data: bytes) -> Crossing:
    return Crossing(round, kind, direction, client, len(data), hashlib.sha256(data).hexdigest())


def _name(data: bytes) -> str:
    try:
        return KINDS.get(kind(data), "reply")
    except MalformedMessage:
        return "malformed"
