"""Whether two charges are for the same records: a fingerprint under the owner's key, and a search for it elsewhere.

It guards an owner against charging the same records under two names by mistake. An owner who means to can always
reorder them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocols.primitives import Identity, authenticate, derive
from securefl.errors import LedgerError
from securefl.privacy.ledger.file import explained, is_ledger, read

_KEY = "securefl data fingerprint key"
_FINGERPRINT = "securefl data fingerprint"


def fingerprint_key(identity: Identity) -> bytes:
    """The secret, 32 bytes, that makes this owner's fingerprints."""
    return derive(identity.secret, _KEY)


def fingerprint(key: bytes, features: NDArray[np.generic], labels: NDArray[np.generic]) -> bytes:
    """HMAC-SHA256 over shape, type and bytes of both arrays: 32 bytes, equal for equal records in equal order.

    Guarantee: who lacks ``key`` cannot test a guess of the data with it, and learns only which charges were for equal
    data. Assumes that HMAC-SHA256 is a pseudorandom function.
    """
    return authenticate(key, _FINGERPRINT, *_described(features), *_described(labels))


def refuse_twin(ledger: Path, found: bytes) -> None:
    """Raise ``LedgerError`` if records with this fingerprint are charged in another ledger of the same client.

    ``ledger`` lies at FOLDER/DATA SET/CLIENT.sqlite; all FOLDER/*/CLIENT.sqlite are searched. Ledgers that another
    identity signed fingerprint under another key, and are not recognised. Raises ``LedgerError`` on one that is
    altered, too.
    """
    with explained(str(ledger)):
        folders = sorted(ledger.absolute().parent.parent.iterdir())
    for other in (folder / ledger.name for folder in folders):
        if not is_ledger(other) or (ledger.exists() and other.samefile(ledger)):
            continue
        chain = read(other)
        if any(entry.fingerprint == found for entry in chain.entries):
            raise LedgerError(
                f"these records are charged under the name {chain.header.data!r} already, in {other}: "
                f"name the data set so, and what was spent on it is carried on"
            )


def _described(array: NDArray[np.generic]) -> tuple[bytes, bytes]:
    """Shape and type in words, and the digest of the bytes: large data are not copied."""
    whole = np.ascontiguousarray(array).reshape(-1)
    return f"{whole.dtype.str} {array.shape}".encode(), hashlib.sha256(whole.view(np.uint8).data).digest()
