"""All clients in one process: the embedded engine, for trials, tests and demonstrations.

It can make chosen clients fall silent, or garble what they say, at chosen exchanges: every fault can be watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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


Ahead = Callable[[Iterable[tuple[str, bytes]]], Iterable[tuple[str, bytes]]]
"""The same requests in the same order, after what is better done for several clients at once."""


class LocalEngine:
    """Calls the clients one after the other; a reply is folded in before the next client is asked.

    ``ahead`` sees the requests of each exchange first, without those that are not answered.
    """

    def __init__(
        self, clients: Mapping[str, Answering], faults: Iterable[Silence | Corruption] = (), ahead: Ahead = iter
    ) -> None:
        self._clients = dict(clients)
        self._faults = tuple(faults)
        self._ahead = ahead

    def exchange(self, round: int) -> Exchange:
        """The exchange for one round: who is silent in it stays silent from that exchange on."""
        now = [fault for fault in self._faults if fault.round == round]
        silent_from = {fault.client: fault.exchange for fault in now if isinstance(fault, Silence)}
        corrupt = {(fault.client, fault.exchange) for fault in now if isinstance(fault, Corruption)}

        def call(requests: Messages) -> Iterator[tuple[str, bytes]]:
            heard = ((name, each) for name, each in requests.items() if _step(each) < silent_from.get(name, len(STEPS)))
            for name, request in self._ahead(heard):
                reply = self._clients[name].handle(request)
                yield name, flipped(reply) if (name, _step(request)) in corrupt else reply

        return call


def _step(request: bytes) -> int:
    return STEPS.get(kind(request), -1)


def flipped(reply: bytes) -> bytes:
    """The same with its middle bit turned over."""
    middle = len(reply) // 2
    return reply[:middle] + bytes([reply[middle] ^ 1]) + reply[middle + 1 :]
