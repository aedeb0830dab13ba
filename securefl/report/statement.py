"""What one client says of its own side of a run, and signs (Ed25519, RFC 8032).

What a statement proves is who said it and that it was not changed; not that the client sampled, noised or charged as it
says.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from protocols.primitives import Identity, verify
from securefl.privacy.mechanism import Budget, Release, Unit
from securefl.report.canonical import digest

Unknown = Literal["unknown"]
"""Something that is, or may be, and that the writer does not know."""

Absent = Literal["none", "unknown"]
"""Besides: "none", where there is no such thing."""

Count = Annotated[int, Meta(ge=0)]
Nonnegative = Annotated[float, Meta(ge=0)]

Epsilon = Nonnegative | Literal["infinite", "none", "unknown"]
"""An upper bound; "infinite": a bound that bounds nothing; "none": no guarantee is claimed."""

# ECMAScript's $, which JSON Schema means, is the end; Python's also matches before a newline there.
_END = r"$(?!\n)"
Hash = Annotated[
    str, Meta(pattern=f"^([0-9a-f]{{64}}|none|unknown){_END}", description="32 bytes in hex, none or unknown")
]
Key = Annotated[str, Meta(pattern=f"^[0-9a-f]{{64}}{_END}", description="an Ed25519 public key in hex")]
Signature = Annotated[str, Meta(pattern=f"^[0-9a-f]{{128}}{_END}", description="an Ed25519 signature in hex")]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a ledger stood: how many entries it had, and the digest of the last one (of the genesis, where 0)."""

    sequence: Count
    digest: Hash


class Charge(Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt of one round, as it was charged before anything was released; ``releases``: all of it."""

    round: int
    attempt: int
    releases: tuple[Release, ...]


class Statement(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag="securefl-statement/1",
    tag_field="format",
):
    """One client on one run. ``plan``, ``model``: SHA-256 of the plan's encoding, of the final model's parameters.

    ``fingerprints``: keyed digests of the records, in hex; only the owner's key tells which records. ``ledger``: the
    ledger's id in hex. ``before``: its head before the run's first charge, ``after``: behind its last. ``charges`` are
    this run's. ``epsilon_before`` and ``epsilon_after``: of all charges in the ledger then, at the budget's delta, as
    the client's own accountant gives it. ``refused``: rounds that the client refused for its budget. ``simulated``:
    noise or samples came from a seed. ``witnessed``: the last ledger head that each peer showed, in hex (72 bytes: the
    ledger's id, sequence, digest); ``doubts``: what was wrong with such heads, in words. ``software``: versions by
    package, at the client. ``surveyed``: what the run's survey counted, of a client that can read the sum while the
    coordinator cannot (CKKS); absent otherwise.
    """

    LABEL: ClassVar[str] = "securefl statement 1"

    run: str
    client: str
    plan: Hash
    model: Hash
    data: str
    fingerprints: tuple[str, ...]
    unit: Unit
    neighbours: str
    ledger: str
    before: Head | Absent
    after: Head | Absent
    charges: tuple[Charge, ...]
    budget: Budget | Absent
    epsilon_before: Epsilon
    epsilon_after: Epsilon
    refused: Count | Unknown
    simulated: bool
    witnessed: dict[str, str]
    doubts: tuple[str, ...]
    software: dict[str, str]
    surveyed: tuple[float, ...] = ()

    @property
    def releases(self) -> tuple[Release, ...]:
        """All that this run was charged for at this client, in order."""
        return tuple(release for charge in self.charges for release in charge.releases)


class SignedStatement(Struct, frozen=True, forbid_unknown_fields=True):
    """A statement with its client's signature over ``digest(statement)``; ``key`` is for the reader to pin."""

    statement: Statement
    key: Key
    signature: Signature


def sign(statement: Statement, identity: Identity) -> SignedStatement:
    """The statement, signed. Raises ``BadInput`` for one that has no canonical form."""
    signature = identity.sign(digest(statement))
    return SignedStatement(statement, identity.public.hex(), signature.hex())


def opened(signed: SignedStatement) -> Statement:
    """The statement of whoever holds the key. Raises ``Forged`` if the signature is not by that key.

    That the key is the client's is for the caller to compare with the roster.
    """
    statement = signed.statement
    verify(bytes.fromhex(signed.key), bytes.fromhex(signed.signature), digest(statement), statement.client)
    return statement
