"""The messages of a round and the signed envelope that every client's reply travels in.

The signature covers the header; the header holds the root of a hash tree over the parts of the body. A header and its
signature can therefore travel on without the body, or with one part of it, and still prove what their sender said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from protocols.aggregation.session import LONGEST_NAME, Roster, Step
from protocols.base import ClientId, Map
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.merkle import Tree, climb, leaf, tree_of
from protocols.primitives import Identity, digest, equal, verify
from protocols.wire import Message

# An envelope with one short part in it; what may be longer in an exchange is added to this.
SHORT_REPLY = 4096
# The short fields of a header are relayed to all: they may not grow.
_Hash = Annotated[bytes, msgspec.Meta(max_length=32)]
_Name = Annotated[ClientId, msgspec.Meta(max_length=LONGEST_NAME)]
# A run's name is kept by who hears it; a number of a round is written in eight bytes.
RunName = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a signature covers. ``keys``: hash of the key list U1 from exchange 1 on, of U1 and U2 from exchange 2 on.

    ``seed``: of a CKKS upload. ``body``: root of the hash tree over the body's parts.
    """

    session: _Hash
    step: int
    sender: _Name
    keys: _Hash
    seed: _Hash
    body: _Hash


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A header without its body: its encoded bytes and the sender's Ed25519 signature over them."""

    header: bytes
    signature: bytes

    def says(self, step: Step) -> bool:
        """Whether the header claims to be of this step: for telling messages apart, before anything is verified."""
        return self._read().step == step

    def _read(self) -> Header:
        try:
            return msgspec.msgpack.decode(self.header, type=Header, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedMessage(f"not an envelope's header: {error}") from error

    def authenticate(self, roster: Roster) -> Header:
        """The header, if a roster member signed it in whatever session."""
        header = self._read()
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
    """A client's reply: a signed header and the parts that it commits to."""

    KIND: ClassVar[int] = 32

    signed: Signed
    parts: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=1 << 16)]

    def open(self, roster: Roster, session: bytes, step: Step, sender: ClientId, map: Map = map) -> Header:
        """The header, if it is ``sender``'s for this session and exchange and fits the parts."""
        header = self.signed.open(roster, session, step)
        if header.sender != sender:
            raise Inconsistent(f"an envelope of {header.sender} came from {sender}")
        if not equal(tree_of(self.parts, map).root, header.body):
            raise Forged(f"the body of {sender}'s envelope is not what it signed")
        return header


class Extract(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A signed header with one part of its body, number ``index`` of ``parts``, and the proof that it belongs there."""

    signed: Signed
    part: bytes
    index: int
    parts: int
    path: bytes

    def open(self, roster: Roster, session: bytes, step: Step) -> Header:
        """The header, if a roster member signed it for this session and exchange, over a body with this part."""
        header = self.signed.open(roster, session, step)
        if not equal(climb(leaf(self.part), self.index, self.parts, self.path), header.body):
            raise Forged(f"the relayed part is not the one that {header.sender} signed")
        return header


def extract(given: Envelope, tree: Tree, index: int) -> Extract:
    """One part of an envelope whose parts hash to ``tree``."""
    return Extract(given.signed, given.parts[index], index, len(given.parts), tree.path(index))


def sign(identity: Identity, header: Header) -> Signed:
    """Sign a header."""
    encoded = msgspec.msgpack.encode(header)
    return Signed(encoded, identity.sign(_signed_bytes(encoded)))


def envelope(identity: Identity, header: Header, parts: Sequence[bytes], map: Map = map) -> Envelope:
    """Sign ``header`` with the root over ``parts`` filled in."""
    filled = msgspec.structs.replace(header, body=tree_of(parts, map).root)
    return Envelope(sign(identity, filled), tuple(parts))


def _signed_bytes(header: bytes) -> bytes:
    return digest("envelope", header)


def key_list_entry(advertised: Signed) -> bytes:
    """What the key list holds of one member: 32 bytes that bind its signed keys."""
    return digest("key list entry", advertised.header, advertised.signature)


def key_list_digest(members: Sequence[ClientId], entries: bytes) -> bytes:
    """The hash of the exact key list U1, by which all later messages name it."""
    return digest("key list", msgspec.msgpack.encode(list(members)), entries)


def membership_digest(keys: bytes, shared: bytes) -> bytes:
    """By which exchange 2 and all later messages name the key list U1 and those marked in it, U2."""
    return digest("members", keys, shared)


def survivors_statement(
    session: bytes, keys: bytes, cohort: Sequence[ClientId], shared: bytes, survivors: bytes
) -> bytes:
    """What a client signs in exchange 3: that in this session these are U1 (by name and by keys), U2 and U3.

    U2 and U3 are marks in U1 (:mod:`protocols.aggregation.marks`).
    """
    return digest("survivors", session, keys, msgspec.msgpack.encode(list(cohort)), shared, survivors)


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
    """Body of exchange 4: one share of each dealer in U2 that dealt to the sender, in order of the dealers' names.

    Of b_v if the dealer survived, of its mask key if it dropped.
    """

    shares: tuple[bytes, ...]


class Complaint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of a complaint, in place of an input: these dealt shares, signed and relayed unchanged, that are none."""

    dealers: tuple[ClientId, ...]


class KeysRequest(Message, frozen=True):
    """Exchange 0. ``announcement`` is the application's: plan, model, round; protocols does not read it."""

    KIND: ClassVar[int] = 1
    announcement: bytes


class SharesRequest(Message, frozen=True):
    """Exchange 1: the key list U1. ``members`` by name, sorted; ``entries``: 32 bytes for each, what binds its keys.

    ``advertised``: the keys themselves, of the receiver's neighbours only, in order of their names.
    """

    KIND: ClassVar[int] = 2
    members: tuple[ClientId, ...]
    entries: bytes
    advertised: tuple[Envelope, ...]


class InputRequest(Message, frozen=True):
    """Exchange 2: ``shared`` marks U2 in U1; ``dealt``: what the neighbours in U2 dealt to this client, in order of
    their names. Both are empty without masks.
    """

    KIND: ClassVar[int] = 3
    shared: bytes
    dealt: tuple[Extract, ...]


class ConsistencyRequest(Message, frozen=True):
    """Exchange 3: ``survivors`` marks in U1 the survivor set U3, whose inputs were received."""

    KIND: ClassVar[int] = 4
    survivors: bytes


class UnmaskRequest(Message, frozen=True):
    """Exchange 4: signatures over the survivor set. Which share of whom follows from U2 and U3 and is not asked for."""

    KIND: ClassVar[int] = 5
    consents: tuple[Signed, ...]


class ApplyRequest(Message, frozen=True):
    """Exchange 5, where only key holders can decode: the sum, whose it is, and proof that clients agreed to that."""

    KIND: ClassVar[int] = 6
    run: RunName
    round: Number
    attempt: Number
    total: bytes
    cohort: tuple[ClientId, ...]
    shared: bytes
    keys: bytes
    inputs: tuple[Signed, ...]
    consents: tuple[Signed, ...]


class DecryptRequest(Message, frozen=True):
    """The second half of exchange 5: signatures of those who were handed the very same sum."""

    KIND: ClassVar[int] = 13
    run: RunName
    round: Number
    agreed: tuple[Signed, ...]


class Refusal(Message, frozen=True):
    """A client's unsigned word that it will not answer. ``reason`` is a fixed word, never an exception's text."""

    KIND: ClassVar[int] = 33
    reason: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,20}\Z")]
