"""What the server keeps between rounds, written in one piece: a crash leaves the state before or after."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import ApplyRequest, Envelope
from securefl.errors import NotARun
from securefl.store import Store

_NAME = "state"


class State(Struct, frozen=True, array_like=True):
    """What the server keeps: the last committed round, the last attempt begun, and the model or, sealed, its name.

    ``pending``: a sum that was handed to the clients and is not committed yet; it is handed out
    again, never formed again.
    """

    run: str = ""
    round: int = 0
    attempt: int = 0
    model: bytes = b""
    tag: bytes = b""
    key_id: bytes = b""
    evidence: tuple[Envelope, ...] = ()
    behind: tuple[str, ...] = ()
    pending: ApplyRequest | None = None


def load(store: Store) -> State:
    """The last state; a fresh one where there is none. Raises ``NotARun`` if it cannot be read."""
    stored = store.get(_NAME)
    if stored is None:
        return State()
    try:
        return msgspec.msgpack.decode(stored, type=State)
    except msgspec.DecodeError as error:
        raise NotARun("the server's stored state cannot be read: restore the run's folder from a backup") from error


def save(store: Store, state: State) -> None:
    """On disk when it returns."""
    store.put({_NAME: msgspec.msgpack.encode(state)})
