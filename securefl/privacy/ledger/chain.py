"""What is in a ledger, as values: header, entries, how they are chained and signed, what witnesses hold. No I/O.

The header's digest is the ledger's id and the first link; each entry's digest covers the link before it and the entry.
The client's identity signs every link. That shows an edit, not a rollback: only a head that others witnessed tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
from msgspec import Struct

from protocols.errors import Forged
from protocols.primitives import Identity, digest, verify
from securefl.errors import BadInput, LedgerError
from securefl.privacy.mechanism import NEIGHBOURS, Budget, Release, Unit

_GENESIS = "securefl ledger 2 genesis"
_ENTRY = "securefl ledger 2 entry"
_SIGNED = "securefl ledger 2 signature"
_DIGEST_BYTES = 32
_SEQUENCE_BYTES = 8

HeaderRow = tuple[object, object]
"""As stored: content (canonical JSON), signature. Whatever a file held: ``verified`` trusts no type of it."""

Row = tuple[object, object, object]
"""As stored: sequence, content (canonical JSON), signature."""


@dataclass(frozen=True)
class Owner:
    """Whose ledger it is, and of what: ``data`` is the owner's name for the data set, ``unit`` whom privacy hides."""

    client: str
    data: str
    unit: Unit = "record"

    def __post_init__(self) -> None:
        if not self.client or not self.data:
            raise BadInput("a ledger belongs to one client and one data set: give both a name")
        if self.unit not in NEIGHBOURS:
            raise BadInput(f"{self.unit!r} is no unit of privacy: choose one of {', '.join(NEIGHBOURS)}")


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What a ledger says of itself once and for all; ``public_key`` is Ed25519, ``created`` UTC (ISO 8601)."""

    client: str
    data: str
    unit: Unit
    neighbours: Literal["add-or-remove-one", "zero-out"]
    public_key: bytes
    created: str

    @property
    def owner(self) -> Owner:
        return Owner(self.client, self.data, self.unit)

    def __str__(self) -> str:
        return (
            f"{self.client}: data set {self.data!r}, each {self.unit} ({self.neighbours}), since {self.created}, "
            f"signed by {self.public_key.hex()}"
        )


class Content(Struct, frozen=True, forbid_unknown_fields=True):
    """What one charge says: ``sequence`` counts from 1, ``time`` is UTC (ISO 8601), ``budget`` was then in force.

    ``releases``: all that the round released. ``fingerprint``: of the data then, 32 bytes under the owner's key.
    ``simulated``: noise and sampling came from a seed, so that the release was private for nobody.
    """

    sequence: int
    run: str
    round: int
    attempt: int
    releases: tuple[Release, ...]
    budget: Budget | None
    fingerprint: bytes
    simulated: bool
    time: str


class Entry(Content, frozen=True, forbid_unknown_fields=True):
    """One charge in its place: ``digest`` covers ``previous`` and the content, ``signature`` is over ``digest``."""

    previous: bytes
    digest: bytes
    signature: bytes

    @property
    def row(self) -> tuple[int, bytes, bytes]:
        """As it is stored."""
        content = Content(*(getattr(self, name) for name in Content.__struct_fields__))
        return self.sequence, msgspec.json.encode(content), self.signature

    def __str__(self) -> str:
        limit = "no budget" if self.budget is None else f"epsilon {self.budget.epsilon:g} at {self.budget.delta:g}"
        seeded = ", SIMULATED" if self.simulated else ""
        return (
            f"{self.sequence}  {self.time}  run {self.run!r}, round {self.round}, attempt {self.attempt}: "
            f"{' + '.join(map(str, self.releases))} under {limit}, data {self.fingerprint.hex()[:8]}{seeded}"
        )


@dataclass(frozen=True)
class Head:
    """The last link of a chain: how many entries it has, and the digest of the last (of the header, if none)."""

    sequence: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest.hex()}"


@dataclass(frozen=True)
class Witness:
    """What others see of a ledger: its id (32 bytes) and its head. Tells how many charges there are, not what they are.

    Guarantee: an owner who goes on with an older copy of the ledger contradicts what was witnessed after that copy was
    made. Assumes that some witness keeps it, and that SHA-256 is collision-resistant.
    """

    ledger: bytes
    head: Head

    def encoded(self) -> bytes:
        """72 bytes: id, sequence (8 bytes, big-endian), digest."""
        return self.ledger + self.head.sequence.to_bytes(_SEQUENCE_BYTES, "big") + self.head.digest

    @classmethod
    def decoded(cls, data: bytes) -> Witness:
        """Undo ``encoded``. Raises ``LedgerError`` for anything else."""
        ledger, number, last = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        sequence = int.from_bytes(number, "big")
        if len(number) != _SEQUENCE_BYTES or (sequence == 0) != (ledger == last):
            raise LedgerError(f"{len(data)} bytes that are no head of a ledger: have that client install this securefl")
        return cls(ledger, Head(sequence, last))

    def contradicts(self, earlier: Witness) -> str | None:
        """Why one unaltered ledger cannot have shown ``earlier`` first and this later; None where it can."""
        if self.ledger != earlier.ledger:
            return f"another ledger: its id was {earlier.ledger.hex()} and is {self.ledger.hex()}"
        if self.head.sequence < earlier.head.sequence:
            return f"rolled back: it had {earlier.head.sequence} charges and now has {self.head.sequence}"
        if self.head.sequence == earlier.head.sequence and self.head.digest != earlier.head.digest:
            return f"rolled back: charge {self.head.sequence} is another one than was witnessed before"
        return None


@dataclass(frozen=True)
class Chain:
    """A whole ledger. ``verified`` makes one from what a file holds, after checking every link and signature."""

    header: Header
    signature: bytes
    entries: tuple[Entry, ...] = ()

    @property
    def id(self) -> bytes:
        """The digest of the header, 32 bytes."""
        return _genesis(msgspec.json.encode(self.header))

    @property
    def head(self) -> Head:
        return self._head_at(len(self.entries))

    @property
    def witness(self) -> Witness:
        return Witness(self.id, self.head)

    @property
    def releases(self) -> list[Release]:
        """All that was ever charged, oldest first."""
        return [release for entry in self.entries for release in entry.releases]

    def lacks(self, witness: Witness) -> str | None:
        """Why this chain cannot have shown ``witness`` before it grew to what it is now; None where it can."""
        then = self._head_at(min(witness.head.sequence, len(self.entries)))
        return Witness(self.id, then).contradicts(witness)

    def _head_at(self, sequence: int) -> Head:
        return Head(sequence, self.entries[sequence - 1].digest if sequence else self.id)

    def grown(self, entry: Entry) -> Chain:
        return replace(self, entries=(*self.entries, entry))


def begun(owner: Owner, identity: Identity, created: str) -> Chain:
    """A new ledger without entries, signed by its owner's identity."""
    header = Header(owner.client, owner.data, owner.unit, _neighbours(owner.unit), identity.public, created)
    return Chain(header, _signature(identity, _genesis(msgspec.json.encode(header))))


def charged(chain: Chain, identity: Identity, content: Content) -> Entry:
    """The entry that ``content`` becomes at the end of ``chain``, signed."""
    # Once there and back: what will be read later is what is chained now, to the byte.
    content = msgspec.json.decode(msgspec.json.encode(content), type=Content)
    link = _link(chain.head.digest, msgspec.json.encode(content))
    return _entry(content, chain.head.digest, link, _signature(identity, link))


def verified(header: HeaderRow, rows: Iterable[Row], source: str) -> Chain:
    """The ledger in these rows. ``source`` names it in messages.

    Raises ``LedgerError`` unless header and entries follow from each other, and are signed by the key in the header.
    """
    content, signature = header
    if not isinstance(content, bytes) or not isinstance(signature, bytes):
        raise altered(source, "its header is not one")
    try:
        decoded = msgspec.json.decode(content, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise altered(source, "its header is not one") from None
    if msgspec.json.encode(decoded) != content or decoded.neighbours != NEIGHBOURS[decoded.unit]:
        raise altered(source, "its header is not one")
    _require_signed(decoded, signature, _genesis(content), altered(source, "its header is not signed by its owner"))
    return continued(Chain(decoded, signature), rows, source)


def continued(chain: Chain, rows: Iterable[Row], source: str) -> Chain:
    """``chain`` with these rows after its end, verified. Raises ``LedgerError`` as ``verified`` does."""
    entries, head = list(chain.entries), chain.head
    for row in rows:
        entries.append(_verified_entry(chain.header, head, row, source))
        head = Head(len(entries), entries[-1].digest)
    return replace(chain, entries=tuple(entries))


def altered(source: str, how: str) -> LedgerError:
    """The error for a ledger that is not as it was written."""
    return LedgerError(f"{source} was altered: {how}; train nothing on this data and restore the ledger from a backup")


def _verified_entry(header: Header, head: Head, row: Row, source: str) -> Entry:
    sequence, content, signature = row
    broken = altered(source, f"entry {head.sequence + 1} does not follow from the one before it")
    if sequence != head.sequence + 1 or not isinstance(content, bytes) or not isinstance(signature, bytes):
        raise broken
    link = _link(head.digest, content)
    # First the signature: what it covers and we cannot read, a newer securefl wrote.
    _require_signed(header, signature, link, broken)
    try:
        decoded = msgspec.json.decode(content, type=Content)
    except (msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
        raise LedgerError(
            f"{source}: entry {sequence} is signed, but this securefl cannot read it ({error}), so cannot say what was "
            "spent: install the securefl that wrote it"
        ) from error
    if decoded.sequence != sequence or msgspec.json.encode(decoded) != content:
        raise broken
    return _entry(decoded, head.digest, link, signature)


def _require_signed(header: Header, signature: bytes, link: bytes, otherwise: LedgerError) -> None:
    try:
        verify(header.public_key, signature, digest(_SIGNED, link), header.client)
    except Forged as error:
        raise otherwise from error


def _signature(identity: Identity, link: bytes) -> bytes:
    return identity.sign(digest(_SIGNED, link))


def _genesis(content: bytes) -> bytes:
    return digest(_GENESIS, content)


def _link(previous: bytes, content: bytes) -> bytes:
    return digest(_ENTRY, previous, content)


def _entry(content: Content, previous: bytes, link: bytes, signature: bytes) -> Entry:
    return Entry(**msgspec.structs.asdict(content), previous=previous, digest=link, signature=signature)


def _neighbours(unit: Unit) -> Literal["add-or-remove-one", "zero-out"]:
    return msgspec.convert(NEIGHBOURS[unit], Literal["add-or-remove-one", "zero-out"])  # type: ignore[no-any-return]
