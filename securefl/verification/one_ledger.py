"""One ledger, or an export of one, checked and put into words."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from securefl.errors import BadInput
from securefl.verification import audit


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
    """Read and check a ledger's file or export. ``key``: the owner's, in hex, if it is known from elsewhere.

    Raises ``LedgerError`` for one that does not hold or is by another key, ``BadInput`` for what cannot be read, or
    charges that cannot be composed.
    """
    known = None if key is None else _key(key)
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "name one client's ledger, LEDGERS/DATA/CLIENT.sqlite, or an export of one"
        raise BadInput(f"cannot read {path} ({error.strerror}): {hint}") from error
    exported = content.lstrip().startswith(b"{")
    found = audit.verify_export(content, known, str(path)) if exported else audit.verify(path, known)
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
    if re.fullmatch("[0-9A-Fa-f]{64}", text) is None:
        raise BadInput(f"{text!r} is no public key: give its 64 hexadecimal digits")
    return bytes.fromhex(text)
