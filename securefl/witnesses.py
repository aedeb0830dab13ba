"""Heads of others' ledgers as one party last saw them: by these a ledger that was set back is noticed.

Each head came in a signed message; what is kept here is that party's own memory, which it signs in its statement.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocols.errors import Inconsistent, MalformedMessage
from securefl.errors import LedgerError, NotARun
from securefl.privacy.ledger import Witness
from securefl.store import Store

_NAME: Final = "witness"


class Seen(Struct, frozen=True, array_like=True):
    """The last head that an owner showed, and why one that it showed later cannot be (else empty). ``least``: charges
    that its next one must have, since it contributed to what is charged.
    """

    head: bytes
    contradiction: str = ""
    least: int = 0

    def refuses(self, later: Witness) -> str | None:
        """Why ``later`` cannot be shown after this; None where it can."""
        why = later.contradicts(Witness.decoded(self.head))
        if why is None and later.head.sequence < self.least:
            return f"rolled back: it contributed, so must have {self.least} charges, and has {later.head.sequence}"
        return why


class Witnesses:
    """The memory of one party, in its store: what is new goes there with :meth:`save`, all in one write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new: dict[str, Seen] = {}

    def save(self) -> None:
        """Keep what was seen since the last time; on disk when this returns."""
        if self._new:
            self._store.put({f"{_NAME} {key}": msgspec.msgpack.encode(each) for key, each in self._new.items()})
            self._new = {}

    def see(self, run: str, owner: bytes, name: str, shown: bytes) -> None:
        """Remember the head that the owner of this public key showed in a run.

        Raises ``MalformedMessage`` for what is no head, and ``Inconsistent`` for one that cannot follow what was seen
        before: that ledger was set back, or is another one than in this run before. What was seen first stays. Who
        keeps no ledger shows nothing, ever.
        """
        if not shown:
            if self.of(run, owner) is not None:
                raise Inconsistent(f"{name} showed a ledger in this run and does so no longer")
            return
        try:
            head = Witness.decoded(shown)
        except LedgerError as error:
            raise MalformedMessage(f"{name} showed what is no head of a ledger: {error}") from error
        keys = (f"{owner.hex()} run {run}", f"{owner.hex()} {head.ledger.hex()}")
        seen = {key: self._at(key) or Seen(shown) for key in keys}
        for before in seen.values():
            why = before.refuses(head)
            if why is not None:
                # In both places: what was set back between runs belongs into the statement on this one, too.
                self._keep({key: replace(before, contradiction=why) for key in keys})
                raise Inconsistent(f"the ledger of {name} is not the one seen before: {why}")
        wrong = next((each.contradiction for each in seen.values() if each.contradiction), "")
        self._keep({key: replace(each, head=shown, contradiction=wrong) for key, each in seen.items()})

    def contributed(self, run: str, owner: bytes) -> None:
        """Remember that the owner of this public key sent what is charged: its ledger has grown since it was seen."""
        seen = self.of(run, owner)
        if seen is None:
            return
        head = Witness.decoded(seen.head)
        keys = (f"{owner.hex()} run {run}", f"{owner.hex()} {head.ledger.hex()}")
        self._keep({key: replace(seen, least=head.head.sequence + 1) for key in keys})

    def of(self, run: str, owner: bytes) -> Seen | None:
        """What was seen last, in this run, of the ledger of the owner of this public key."""
        return self._at(f"{owner.hex()} run {run}")

    def _at(self, key: str) -> Seen | None:
        if key in self._new:
            return self._new[key]
        stored = self._store.get(f"{_NAME} {key}")
        try:
            return None if stored is None else msgspec.msgpack.decode(stored, type=Seen)
        except msgspec.DecodeError as error:
            raise NotARun(
                "what was seen of another's ledger cannot be read: restore that store from a backup"
            ) from error

    def _keep(self, seen: dict[str, Seen]) -> None:
        self._new |= {key: each for key, each in seen.items() if self._at(key) != each}
