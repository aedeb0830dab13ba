"""What crossed the wire, one entry a message: kind, size and hash, never the payload."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

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
from securefl.coarse import Duration, coarse
from securefl.progress import Stage, Watcher

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


class Crossing(Struct, frozen=True, omit_defaults=True):
    """One message. ``direction``: "up" from client to server, "down" the other way. A reply has its request's kind.

    ``took``: of a reply, how long after its request it came, as the coordinator saw it; in classes, since training time
    hints at how many records a client has.
    """

    round: int
    kind: str
    direction: str
    client: str
    bytes: int
    sha256: str
    took: Duration | None = None


class Transcript:
    """Counts bytes by client and hands each crossing to ``write``; round 0 is the set-up. ``watcher`` hears of all."""

    def __init__(
        self,
        write: Callable[[Crossing], None] = lambda crossing: None,
        watcher: Watcher = Watcher(),  # noqa: B008
    ) -> None:
        self._write = write
        self.watcher = watcher
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
            passed: dict[str, _Request] = {}

            def passing(client: str) -> bytes:
                request = requests[client]
                if client not in passed:  # read once by most engines; written down once for all
                    passed[client] = _Request(_name(request), time.monotonic())
                    self.down[client] += len(request)
                    self._note(_crossing(round, passed[client].kind, "down", client, request))
                    if len(passed) == 1:
                        self.watcher.stage(Stage(round, passed[client].kind, len(requests), 0))
                return request

            return self._replies(exchange(Requests(list(requests), passing)), passed, round, len(requests))

        return recorded

    def _replies(
        self, replies: Replies, passed: Mapping[str, _Request], round: int, asked: int
    ) -> Iterator[tuple[str, bytes]]:
        answered: set[str] = set()
        for client, reply in replies:
            self.up[client] += len(reply)
            request, name = passed.get(client), _name(reply)
            took = None if request is None else coarse(time.monotonic() - request.asked)
            kind = "unasked" if request is None else request.kind
            self._note(_crossing(round, name if name == KINDS[Refusal.KIND] else kind, "up", client, reply, took))
            if request is not None:
                answered.add(client)
                self.watcher.stage(Stage(round, kind, asked, len(answered)))
            yield client, reply

    def _note(self, crossing: Crossing) -> None:
        self._write(crossing)
        self.watcher.crossed(crossing)


@dataclass(frozen=True)
class _Request:
    """What a client was asked, and when, in seconds of a clock that only goes forward."""

    kind: str
    asked: float


def _crossing(
    round: int, kind: str, direction: str, client: str, data: bytes, took: Duration | None = None
) -> Crossing:
    return Crossing(round, kind, direction, client, len(data), hashlib.sha256(data).hexdigest(), took)


def _name(data: bytes) -> str:
    try:
        return KINDS.get(kind(data), "reply")
    except MalformedMessage:
        return "malformed"
