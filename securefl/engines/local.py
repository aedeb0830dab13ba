"""All clients in one process: the embedded engine, for trials, tests and demonstrations.

It can make chosen clients fall silent, or garble what they say, at chosen exchanges: every fault can be watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    DecryptRequest,
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
STEPS = {request.KIND: step for step, request in enumerate(_ROUND)}
"""The exchange (0 to 5) that a request is of, by its kind."""
STEPS[DecryptRequest.KIND] = STEPS[ApplyRequest.KIND]  # one exchange, in two halves


class Answering(Protocol):
    """Anything with the client's one verb."""

    def handle(self, request: bytes) -> bytes: ...


class Silence(Struct, frozen=True):
    """A client that answers nothing from ``exchange`` (0 to 5) on, in ``round`` only."""

    client: str
    exchange: int
    round: int


class Corruption(Struct, frozen=True):
    """A client whose reply at ``exchange`` in ``round`` arrives with its middle bit flipped."""

    client: str
    exchange: int
    round: int


class LocalEngine:
    """Calls the clients one after the other; a reply is folded in before the next client is asked."""

    def __init__(self, clients: Mapping[str, Answering], faults: Iterable[Silence | Corruption] = ()) -> None:
        self._clients = dict(clients)
        self._faults = tuple(faults)

    def exchange(self, round: int) -> Exchange:
        """The exchange for one round: who is silent in it stays silent from that exchange on."""
        now = [fault for fault in self._faults if fault.round == round]
        silent_from = {fault.client: fault.exchange for fault in now if isinstance(fault, Silence)}
        corrupt = {(fault.client, fault.exchange) for fault in now if isinstance(fault, Corruption)}

        def call(requests: Messages) -> Iterator[tuple[str, bytes]]:
            for name, request in requests.items():
                step = STEPS.get(kind(request), -1)
                if step < silent_from.get(name, len(STEPS)):
                    reply = self._clients[name].handle(request)
                    yield name, flipped(reply) if (name, step) in corrupt else reply

        return call


def flipped(reply: bytes) -> bytes:
    """The same with its middle bit turned over."""
    middle = len(reply) // 2
    return reply[:middle] + bytes([reply[middle] ^ 1]) + reply[middle + 1 :]
