"""The messages of a round and the signed envelope that every client's reply travels in.

The signature covers the header; the header holds the hash of each part of the body. A header and its signature can
therefore travel on without the body, and still prove what its sender said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from protocols.aggregation.session import Roster, Step
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.primitives import Identity, digest, equal, hashes, verify
from protocols.wire import Message


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a signature covers. ``keys``: hash of the key list U1, from exchange 1 on. ``seed``: of a CKKS upload."""

    session: bytes
    step: int
    sender: ClientId
    keys: bytes
    seed: bytes
    parts: tuple[bytes, ...]


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A header without its body: its encoded bytes and the sender's Ed25519 signature over them."""

    header: bytes
    signature: bytes

    def authenticate(self, roster: Roster) -> Header:
        """The header, if a roster member signed it in whatever session."""
        try:
            header = msgspec.msgpack.decode(self.header, type=Header, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedMessage(f"not an envelope's header: {error}") from error
        verify(roster.public_key(header.sender), self.signature, _signed_bytes(self.header), header.sender)
        return header

    def open(self, roster: Roster, session: bytes, step: Step) -> Header:
        """The header, if it is a roster member's for exactly this session and exchange."""
        header = self.authenticate(roster)
        if not equal(header.session, session):
            raise Inconsistent(
                f"{header.sender} speaks in another session: its run, round, attempt, plan, model or key differs"
            )
        if header.step != step:
            raise Inconsistent(f"{header.sender} sent a message of exchange {header.step} in exchange {step:d}")
        return header


class Envelope(Message, frozen=True):
    """A client's reply: a signed header and the parts whose hashes it lists."""

    KIND: ClassVar[int] = 32

    signed: Signed
    parts: tuple[bytes, ...]

    def open(self, roster: Roster, session: bytes, step: Step, sender: ClientId) -> Header:
        """The header, if it is ``sender``'s for this session and exchange and fits the parts."""
        header = self.signed.open(roster, session, step)
        if header.sender != sender:
            raise Inconsistent(f"an envelope of {header.sender} came from {sender}")
        if hashes(self.parts) != header.parts:
            raise Forged(f"the body of {sender}'s envelope is not what it signed")
        return header


def sign(identity: Identity, header: Header) -> Signed:
    """Sign a header."""
    encoded = msgspec.msgpack.encode(header)
    return Signed(encoded, identity.sign(_signed_bytes(encoded)))


def envelope(identity: Identity, header: Header, parts: Sequence[bytes]) -> Envelope:
    """Sign ``header`` with the hashes of ``parts`` filled in."""
    filled = msgspec.structs.replace(header, parts=hashes(parts))
    return Envelope(sign(identity, filled), tuple(parts))


def _signed_bytes(header: bytes) -> bytes:
    return digest("envelope", header)


def key_list_digest(envelopes: Sequence[Envelope]) -> bytes:
    """The hash of the exact key list U1, by which all later messages name it."""
    return digest("key list", *(part for e in envelopes for part in (e.signed.header, e.signed.signature, *e.parts)))


def survivors_statement(
    session: bytes, keys: bytes, cohort: Sequence[ClientId], shared: Sequence[ClientId], survivors: Sequence[ClientId]
) -> bytes:
    """What a client signs in exchange 3: that in this session these are U1 (by name and by keys), U2 and U3."""
    return digest("survivors", session, keys, msgspec.msgpack.encode((list(cohort), list(shared), list(survivors))))


class Advertised(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of exchange 0: the session's two X25519 public keys (empty without masks) and the ledger head to witness."""

    mask_key: bytes
    share_key: bytes
    witness: bytes


class Dealt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One receiver's part of a dealer's shares: the sealed pair, and commitments to each half."""

    sealed: bytes
    seed_commitment: bytes
    key_commitment: bytes


class SharePair(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sealed to a receiver: its share of b_u and of the mask secret key."""

    seed: bytes
    key: bytes

    def __repr__(self) -> str:
        return "SharePair()"


class Opened(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of exchange 4: one share per member of U2; of b_v if it survived, of its mask key if it dropped."""

    shares: tuple[tuple[ClientId, bytes], ...]


class KeysRequest(Message, frozen=True):
    """Exchange 0. ``announcement`` is the application's: plan, model, round; protocols does not read it."""

    KIND: ClassVar[int] = 1
    announcement: bytes


class SharesRequest(Message, frozen=True):
    """Exchange 1: the key list U1, sorted by name."""

    KIND: ClassVar[int] = 2
    advertised: tuple[Envelope, ...]


class Relayed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One dealer's signed header with the one part that is for this receiver."""

    signed: Signed
    part: bytes


class InputRequest(Message, frozen=True):
    """Exchange 2: what the other members of U2 dealt to this client. Empty without masks."""

    KIND: ClassVar[int] = 3
    dealt: tuple[Relayed, ...]


class ConsistencyRequest(Message, frozen=True):
    """Exchange 3: the survivor set U3, whose inputs were received, sorted by name."""

    KIND: ClassVar[int] = 4
    survivors: tuple[ClientId, ...]


class UnmaskRequest(Message, frozen=True):
    """Exchange 4: signatures over the survivor set. Which share of whom follows from U2 and U3 and is not asked for."""

    KIND: ClassVar[int] = 5
    consents: tuple[Signed, ...]


class ApplyRequest(Message, frozen=True):
    """Exchange 5, where only key holders can decode: the sum, whose it is, and the proof that clients agreed to it."""

    KIND: ClassVar[int] = 6
    run: str
    round: int
    attempt: int
    total: bytes
    cohort: tuple[ClientId, ...]
    shared: tuple[ClientId, ...]
    keys: bytes
    inputs: tuple[Signed, ...]
    consents: tuple[Signed, ...]


class Refusal(Message, frozen=True):
    """A client's unsigned word that it will not answer. ``reason`` is a fixed word, never an exception's text."""

    KIND: ClassVar[int] = 33
    reason: str
