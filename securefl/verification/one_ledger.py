"""One ledger, or an export of one, checked and put into words."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from securefl.errors import BadInput, LedgerError
from securefl.privacy import ledger


class Account(Struct, frozen=True):
    """A ledger that was found consistent. ``charges``: a line each; ``epsilons``: what all charges up to the last under
    a budget come to, at its delta; ``lines``: what was verified and what cannot be.
    """

    client: str
    data: str
    unit: str
    key: str
    head: str
    charges: tuple[str, ...]
    epsilons: tuple[float, ...]
    lines: tuple[str, ...]


def account(path: Path, key: str | None) -> Account:
    """Read and check a ledger's file or export. Raises ``LedgerError`` for one that does not hold."""
    known = None if key is None else _key(key)
    if not path.is_file():
        raise BadInput(f"{path} is not a file: name one client's ledger, LEDGERS/DATA/CLIENT.sqlite")
    content = path.read_bytes()
    exported = content.lstrip().startswith(b"{")
    found = ledger.verify_export(content, known, source=str(path)) if exported else ledger.verify(path, known)
    header, entries = found.chain.header, found.chain.entries
    return Account(
        header.client,
        header.data,
        header.unit,
        header.public_key.hex(),
        str(found.chain.head),
        tuple(map(str, entries)),
        tuple(spent.epsilon for spent in found.spent),
        tuple(str(found).splitlines()),
    )


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise LedgerError(f"{text!r} is no public key: give its 64 hexadecimal digits") from error
