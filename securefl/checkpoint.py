"""What the server keeps between rounds, written in one piece: a crash leaves the state before or after."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import ApplyRequest, Envelope
from protocols.delivery.messages import Checkpoint
from securefl.errors import NotARun
from securefl.store import Store

_NAME = "state"
_SEALED = "sealed model"


class State(Struct, frozen=True, array_like=True):
    """What the server keeps: the last committed round, the last attempt begun, and the model or, sealed, its name.

    ``pending``: a sum that was handed to the clients and is not committed yet; it is handed out again, never formed
    again. ``key_round``: after which round the clients' key was made. ``evidence``: the clients' signed words for
    ``tag``. ``behind``: who does not have key and model.
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
    key_round: int = 0


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


def load_sealed(store: Store, tag: bytes) -> Envelope | None:
    """The sealed model of that tag, which the server keeps and cannot read; None where it has no such."""
    stored = store.get(_SEALED)
    if stored is None:
        return None
    kept = msgspec.msgpack.decode(stored, type=Envelope)
    return kept if msgspec.msgpack.decode(kept.parts[0], type=Checkpoint).tag == tag else None


def save_sealed(store: Store, kept: Envelope) -> None:
    """On disk when it returns, beside the state: it is large, and the state is written often."""
    store.put({_SEALED: msgspec.msgpack.encode(kept)})
