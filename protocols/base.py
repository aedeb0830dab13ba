"""The two session interfaces and the one loop between them: a round is messages in, messages out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

ClientId = str
Messages = Mapping[ClientId, bytes]
Replies = Iterable[tuple[ClientId, bytes]]
Exchange = Callable[[Messages], Replies]
Random = Callable[[int], bytes]

Result = TypeVar("Result", covariant=True)
Item = TypeVar("Item")
Done = TypeVar("Done")


class Map(Protocol):
    """The builtin ``map`` or a pool's; a pool of processes gets and returns copies."""

    def __call__(self, task: Callable[[Item], Done], items: Iterable[Item], /) -> Iterable[Done]: ...


class Requests(Mapping[ClientId, bytes]):
    """Requests that are made when they are read: where each client is sent something of its own, they need not all be
    in memory at once. ``make`` gives the same bytes however often it is asked.
    """

    def __init__(self, clients: Sequence[ClientId], make: Callable[[ClientId], bytes]) -> None:
        self._clients = dict.fromkeys(clients)
        self._make = make

    def __getitem__(self, client: ClientId) -> bytes:
        if client not in self._clients:
            raise KeyError(client)
        return self._make(client)

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)


class ClientSession(Protocol):
    """One client's side: an object with one verb. Raises ``ProtocolError`` for any bytes it does not accept."""

    def handle(self, request: bytes) -> bytes: ...


class ServerSession(Protocol[Result]):
    """The server's side: asks for one exchange after another until it has nothing more to ask."""

    def open(self) -> Messages: ...

    def advance(self, replies: Replies) -> Messages: ...

    @property
    def result(self) -> Result: ...


def drive(session: ServerSession[Result], exchange: Exchange) -> Result:
    """Run a session to its end over any transport. An absent reply is a dropout; a deadline lives in ``exchange``."""
    requests = session.open()
    while requests:
        requests = session.advance(exchange(requests))
    return session.result
