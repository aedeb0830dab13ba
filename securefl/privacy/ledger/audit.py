"""What an auditor checks of a ledger, offline and without its owner's secret: in the SQLite file, or in its export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from securefl.errors import LedgerError
from securefl.privacy.accountant import epsilon
from securefl.privacy.ledger.chain import Chain, Entry, Header, Witness, altered, verified
from securefl.privacy.ledger.file import FORMAT, read
from securefl.privacy.mechanism import Budget

# A budget that is spent to the last digit may be above it by rounding where another build of numpy adds up.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Spent:
    """What all charges up to ``sequence`` come to, at the delta of the budget that was in force there."""

    sequence: int
    budget: Budget
    epsilon: float

    def __str__(self) -> str:
        return (
            f"after charge {self.sequence}: epsilon {self.epsilon:.3f} of {self.budget.epsilon:g} "
            f"at delta {self.budget.delta:g}"
        )


@dataclass(frozen=True)
class Verified:
    """A ledger that was found consistent. ``spent``: one value for each stretch of charges under one budget.

    ``attributed``: whether the key that signed it was known beforehand. ``witnessed``: how many heads were found in it.

    Guarantee: the holder of the key in its header charged exactly this, in this order, and never more than the budget
    then in force. Nothing was taken back since the newest head that was witnessed. That the owner sampled and noised as
    charged cannot be seen in a ledger, nor whether another ledger has charges against the same data.
    """

    chain: Chain
    spent: tuple[Spent, ...]
    attributed: bool
    witnessed: int

    def __str__(self) -> str:
        charges, held = len(self.chain.entries), sum(entry.budget is None for entry in self.chain.entries)
        key = "the expected key" if self.attributed else "the key that it names itself: compare it with the owner's"
        lines = [
            str(self.chain.header),
            f"{charges} charges ({held} without a budget), {self.simulated} simulated; head {self.chain.head}",
            *map(str, self.spent),
            f"links and signatures hold, under {key}; budgets were kept; {self.witnessed} witnessed heads are in it",
            "not shown: that sampling and noise were as charged, or that no other ledger has charges for this data",
        ]
        return "\n".join(lines)

    @property
    def simulated(self) -> int:
        """How many charges were for simulated releases."""
        return sum(entry.simulated for entry in self.chain.entries)


class Export(Struct, frozen=True, forbid_unknown_fields=True):
    """A ledger as one JSON document. An entry's digest is over the digest before it and the entry as compact JSON, up
    to and without ``previous``; both are framed (``protocols.primitives.digest``)."""

    format: Literal[2]
    header: Header
    signature: bytes
    entries: tuple[Entry, ...]


def verify(path: str | Path, public_key: bytes | None = None, witnessed: Iterable[Witness] = ()) -> Verified:
    """Check a ledger's file, which is only read.

    ``public_key``: the owner's (Ed25519), where it is known from elsewhere. ``witnessed``: heads of this client's
    ledger that others saw. Raises ``LedgerError`` if the file is no unaltered ledger, another key signed it, a charge
    was above its budget, or a witnessed head is not in it.
    """
    return _checked(read(path), public_key, witnessed, str(path))


def export(path: str | Path) -> bytes:
    """All of a ledger's file as JSON (``Export``), after checking links and signatures. Raises ``LedgerError``."""
    chain = read(path)
    document = Export(FORMAT, chain.header, chain.signature, chain.entries)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def verify_export(
    document: bytes, public_key: bytes | None = None, witnessed: Iterable[Witness] = (), source: str = "the export"
) -> Verified:
    """Check what ``export`` gave, as ``verify`` checks a file; however the JSON is laid out."""
    try:
        given = msgspec.json.decode(document, type=Export)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{source} is no export of a ledger that this securefl can read: {error}") from error
    header = (msgspec.json.encode(given.header), given.signature)
    chain = verified(header, [entry.row for entry in given.entries], source)
    if chain.entries != given.entries:
        raise altered(source, "a digest in it is not that of its entry")
    return _checked(chain, public_key, witnessed, source)


def _checked(chain: Chain, public_key: bytes | None, witnessed: Iterable[Witness], source: str) -> Verified:
    if public_key is not None and public_key != chain.header.public_key:
        raise LedgerError(
            f"{source} is signed by {chain.header.public_key.hex()}, not by {public_key.hex()}: it is not this client's"
        )
    heads = list(witnessed)
    for witness in heads:
        missing = chain.lacks(witness)
        if missing is not None:
            raise LedgerError(f"{source}: {missing}; ask its owner for the whole ledger, and rely on no epsilon of it")
    return Verified(chain, tuple(_spent(chain, source)), public_key is not None, len(heads))


def _spent(chain: Chain, source: str) -> Iterator[Spent]:
    """Epsilon only grows, so that a budget that was kept at its last charge was kept at all before."""
    for entry, following in zip(chain.entries, (*chain.entries[1:], None), strict=False):
        if entry.budget is None or (following is not None and following.budget == entry.budget):
            continue
        before = [release for charge in chain.entries[: entry.sequence] for release in charge.releases]
        value = epsilon(before, entry.budget.delta, chain.header.unit)
        if value > entry.budget.epsilon * (1 + _ROUNDING):
            raise LedgerError(
                f"{source}: charge {entry.sequence} makes epsilon {value:.6g}, above its budget of "
                f"{entry.budget.epsilon:g}: what charged it did not keep the budget"
            )
        yield Spent(entry.sequence, entry.budget, value)
