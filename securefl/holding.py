"""What a client stores of one run where only clients can read the model: the key, two models, what it said last."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from protocols.encoding.ckks import CKKSKey
from protocols.errors import Behind, Inconsistent, MalformedMessage
from securefl.store import Store


class Record(Struct, frozen=True, array_like=True):
    """``key``: the package in use; ``next_key``: one that was handed out and is not in use yet. ``round``: whose model
    this client holds; ``agreed`` and ``reply``: its two answers about the sum that led to it. ``asked``: hash of the
    one sum of the next round that it decrypts. ``sums``: how many it agreed to decrypt under ``key``. ``retired``: ids
    of keys that were in use before; none of them ever is again, or its count of sums would begin anew.
    """

    plan: bytes
    key: bytes
    round: int = 0
    agreed: bytes = b""
    reply: bytes = b""
    asked: bytes = b""
    next_key: bytes = b""
    sums: int = 0
    retired: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Record(round={self.round})"  # the packages are secret

    @property
    def keys(self) -> tuple[CKKSKey, ...]:
        """The keys that this client can be asked for, the one in use first."""
        return tuple(CKKSKey.from_bytes(package) for package in (self.key, self.next_key) if package)

    def under(self, key: CKKSKey) -> Record:
        """The record with this key in use, and the one before retired; the record itself where it is in use already."""
        package = key.to_bytes()
        if package == self.key:
            return self
        retired = (*self.retired, CKKSKey.from_bytes(self.key).key_id)
        return msgspec.structs.replace(self, key=package, next_key=b"", sums=0, retired=retired)


class Holding:
    """The record, the current model, and in the store the one before. What changes together is written together."""

    def __init__(self, store: Store, run: str, plan: bytes) -> None:
        self._store = store
        self._names = (f"run {run}", f"model {run}", f"previous model {run}")
        self._stored = store.get(self._names[0])
        self._record = None if self._stored is None else _decoded(self._stored, plan)
        self.model = store.get(self._names[1]) or b""

    @property
    def record(self) -> Record:
        """Raises ``Behind`` where there is none."""
        if self._record is None:
            raise Behind("this client has no key of this run yet")
        return self._record

    @property
    def empty(self) -> bool:
        return self._record is None

    def write(self, record: Record, model: bytes | None = None) -> None:
        """On disk when it returns; a new model moves the one before back. Raises ``Refused`` if somebody else wrote."""
        encoded = msgspec.msgpack.encode(record)
        values = {self._names[0]: encoded}
        if model is not None:
            values |= {self._names[1]: model, self._names[2]: self.model}
        self._store.put(values, expected={self._names[0]: self._stored})
        self._record, self._stored = record, encoded
        self.model = self.model if model is None else model

    @property
    def previous(self) -> bytes:
        """The model before the current one. Seldom wanted, so it is read when it is."""
        return self._store.get(self._names[2]) or b""


def _decoded(stored: bytes, plan: bytes) -> Record:
    try:
        record = msgspec.msgpack.decode(stored, type=Record)
    except msgspec.DecodeError as error:
        raise MalformedMessage("this client's stored key and model cannot be read: restore the run's folder") from error
    if record.plan != plan:
        raise Inconsistent("the plan that the owner accepted is not the one that this run's key was made for")
    return record
