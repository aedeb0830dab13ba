"""All clients in one process: the embedded engine, for trials, tests and demonstrations.

It can make chosen clients fall silent at chosen exchanges, so that every dropout can be watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    InputRequest,
    KeysRequest,
    SharesRequest,
    UnmaskRequest,
)
from protocols.base import Exchange, Messages
from protocols.wire import Message, kind

_ROUND: tuple[type[Message], ...] = (
    KeysRequest,
    SharesRequest,
    InputRequest,
    ConsistencyRequest,
    UnmaskRequest,
    ApplyRequest,
)
_STEPS = {request.KIND: step for step, request in enumerate(_ROUND)}


class Answering(Protocol):
    """Anything with the client's one verb."""

    def handle(self, request: bytes) -> bytes: ...


class Silence(Struct, frozen=True):
    """A client that answers nothing from ``exchange`` (0 to 5) on, in ``round`` only."""

    client: str
    exchange: int
    round: int


class LocalEngine:
    """Calls the clients one after the other; a reply is folded in before the next client is asked."""

    def __init__(self, clients: Mapping[str, Answering], silences: Iterable[Silence] = ()) -> None:
        self._clients = dict(clients)
        self._silences = tuple(silences)

    def exchange(self, round: int) -> Exchange:
        """The exchange for one round: who is silent in it stays silent from that exchange on."""
        silent_from = {silence.client: silence.exchange for silence in self._silences if silence.round == round}

        def call(requests: Messages) -> Iterator[tuple[str, bytes]]:
            for name, request in requests.items():
                step = _STEPS.get(kind(request))
                if step is None or step < silent_from.get(name, len(_STEPS)):
                    yield name, self._clients[name].handle(request)

        return call
