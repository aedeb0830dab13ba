"""What the server keeps between rounds, written in one piece: a crash leaves the state before or after."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import ApplyRequest, Envelope
from protocols.aggregation.verify import read
from protocols.delivery.messages import Checkpoint
from securefl.errors import NotARun
from securefl.outcome import Outcome
from securefl.store import Store

T = TypeVar("T")

_NAME = "state"
_SEALED = "sealed model"


class State(Struct, frozen=True, array_like=True):
    """What the server keeps: the last committed round, the last attempt begun, and the model or, sealed, its name.

    ``pending``: a sum that was handed to the clients and is not committed yet; it is handed out again, never formed
    again. ``outcome``: of the last committed round or, where a sum is pending, of that one. ``key_round``: after which
    round the clients' key was made. ``evidence``: the clients' signed words for ``tag``. ``behind``: who does not have
    key and model. ``counts``: in how many rounds each client took part.
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
    outcome: Outcome | None = None
    counts: dict[str, int] = {}


class Kept:
    """The state as it is on disk, and beside it the newest sealed model: large, and written seldom."""

    def __init__(self, store: Store) -> None:
        """Raises ``NotARun`` if what is stored cannot be read."""
        self._store = store
        self.state = _loaded(store.get(_NAME), State) or State()

    def save(self, **changes: object) -> None:
        """Change the state; on disk when it returns."""
        self.state = msgspec.structs.replace(self.state, **changes)
        self._store.put({_NAME: msgspec.msgpack.encode(self.state)})

    def adopt(self, state: State) -> None:
        """Go on with another state in the place of this one; on disk when it returns."""
        self.save(**msgspec.structs.asdict(state))

    @property
    def sealed(self) -> Envelope | None:
        """The current model as a client sealed it, which the server cannot read; None where there is no such yet."""
        kept = _loaded(self._store.get(_SEALED), Envelope)
        return kept if kept is not None and read(kept.parts, Checkpoint).tag == self.state.tag else None

    def save_sealed(self, sealed: Envelope) -> None:
        """Keep a sealed model in the place of the one before."""
        self._store.put({_SEALED: msgspec.msgpack.encode(sealed)})


def _loaded(stored: bytes | None, kind: type[T]) -> T | None:
    try:
        return None if stored is None else msgspec.msgpack.decode(stored, type=kind)
    except msgspec.DecodeError as error:
        raise NotARun("the server's stored state cannot be read: restore the run's folder from a backup") from error
