"""Signatures of the clients that contributed over the report that was assembled from what they stated."""

from __future__ import annotations

from msgspec.structs import replace

from protocols.primitives import Identity, verify
from securefl.errors import NotARun
from securefl.report.canonical import digest
from securefl.report.document import Endorsement, Report
from securefl.report.statement import SignedStatement


def unsigned_digest(report: Report) -> bytes:
    """What clients sign: the digest of the report without its signatures, 32 bytes."""
    return digest(replace(report, signatures=()))


def endorse(report: Report, own: SignedStatement, identity: Identity) -> Endorsement:
    """A client's signature, given only where the report holds what this client stated, to the bit.

    Raises ``NotARun`` where it does not. Of the rest, the client vouches for nothing but that this is what it signed.
    """
    if own not in report.statements:
        raise NotARun(f"the report does not hold the statement of {own.statement.client}: it is not signed")
    signature = identity.sign(unsigned_digest(report))
    return Endorsement(own.statement.client, identity.public.hex(), signature.hex())


def check_endorsement(report: Report, endorsement: Endorsement) -> None:
    """Raises ``Forged`` unless whoever holds the endorsement's key signed this report.

    That the key is the client's is for the caller to compare with the roster.
    """
    key, signature = bytes.fromhex(endorsement.key), bytes.fromhex(endorsement.signature)
    verify(key, signature, unsigned_digest(report), endorsement.client)
