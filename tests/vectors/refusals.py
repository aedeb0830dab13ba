"""What a client must refuse: a state of the pinned session, a request, and the error that it must lead to.

The client has answered the first ``after`` requests of the session's transcript, then those in ``then``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Advertised,
    Complaint,
    ConsistencyRequest,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    SharesRequest,
    Signed,
    UnmaskRequest,
    envelope,
    extract,
    key_list_entry,
)
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError, SessionSpent
from protocols.merkle import tree_of
from protocols.primitives import AgreementKey
from protocols.wire import decode, encode
from tests.vectors.session import DROPPED, NAMES, Json, Transcript, identity, record, signed, terms

Error = type[ProtocolError]
R = TypeVar("R", bound=msgspec.Struct)

VICTIM = "birch"
NEAR = ("ash", "cedar", "éclat")
LOW_ORDER = bytes(32)
EVERYBODY, SURVIVORS = mark(NAMES, NAMES), mark(NAMES, [name for name in NAMES if name != DROPPED])


@dataclass(frozen=True)
class Case:
    """One refusal: what is wrong, in which state, and the error."""

    wrong: str
    after: int
    message: bytes
    error: Error
    then: tuple[bytes, ...] = ()

    def json(self) -> Json:
        return {
            "wrong": self.wrong,
            "to": VICTIM,
            "after": self.after,
            "then": [each.hex() for each in self.then],
            "message": self.message.hex(),
            "error": self.error.__name__,
        }


def refused() -> Json:
    made, other = record(), record(attempt=2)
    cases = [*framing(made), *order(made), *key_lists(made, other), *dealings(made, other)]
    cases += [*survivor_sets(made), *consents(made, other)]
    return {"cases": [case.json() for case in cases], "complaint": complaint(made)}


def pack(body: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(body)


def unpack(part: bytes, body: type[R]) -> R:
    return msgspec.msgpack.decode(part, type=body)


def framing(made: Transcript) -> Iterator[Case]:
    good = made.requests[Step.KEYS][VICTIM]
    for wrong, message in {
        "nothing": b"",
        "a prefix only": good[:3],
        "other magic": b"sf" + good[2:],
        "another version": good[:2] + b"\2" + good[3:],
        "no such kind": good[:3] + b"\x63" + good[4:],
        "a reply instead of a request": made.replies[Step.KEYS]["ash"],
        "cut short": good[:-1],
        "a byte too many": good + b"\0",
        "a field too many": good[:4] + msgspec.msgpack.encode([b"", b""]),
        "a field missing": good[:4] + msgspec.msgpack.encode([]),
        "text where bytes are due": good[:4] + msgspec.msgpack.encode(["announcement"]),
        "a map where an array is due": good[:4] + msgspec.msgpack.encode({"announcement": b""}),
    }.items():
        yield Case(wrong, 0, message, MalformedMessage)


def order(made: Transcript) -> Iterator[Case]:
    for after in range(6):
        for step in range(5):
            if step != after and (step == (after + 1) % 5 or after == 5 or step == 0):
                wrong = f"the request of exchange {step} after {after} answers"
                yield Case(wrong, after, made.requests[step][VICTIM], SessionSpent)
    yield Case("an input request without masks", 1, encode(InputRequest(b"", ())), SessionSpent)


# ---- exchange 1


def key_list(listed: Sequence[tuple[ClientId, Envelope]], shown: Sequence[Envelope]) -> bytes:
    """A request with the entries of all who are listed, which shows the envelopes of some."""
    entries = b"".join(key_list_entry(each.signed) for _, each in listed)
    return encode(SharesRequest(tuple(name for name, _ in listed), entries, tuple(shown)))


def key_lists(made: Transcript, other: Transcript) -> Iterator[Case]:
    listed = [(name, made.reply(Step.KEYS, name)) for name in NAMES]
    ash, birch, cedar, eclat = (each for _, each in listed)
    good = decode(made.requests[Step.SHARES][VICTIM], SharesRequest)

    def case(wrong: str, request: SharesRequest | bytes, error: Error) -> Case:
        return Case(wrong, 1, encode(request) if isinstance(request, SharesRequest) else request, error)

    for wrong, members in {
        "below the minimum": listed[:2],
        "not sorted": [listed[1], listed[0], *listed[2:]],
        "a member twice": [listed[0], *listed],
        "who is not on the roster": [*listed, ("stranger", signed("stranger", Step.KEYS, b"", ash.parts[0]))],
        "without the receiver": [listed[0], *listed[2:]],
    }.items():
        yield case(wrong, key_list(members, [each for name, each in members if name != VICTIM]), Inconsistent)
    yield case("an entry short", replaced(good, entries=good.entries[:-32]), Inconsistent)
    yield case("a neighbour not shown", replaced(good, advertised=(ash, cedar)), Inconsistent)
    yield case("neighbours out of order", replaced(good, advertised=(cedar, ash, eclat)), Inconsistent)
    yield case("a neighbour shown twice", replaced(good, advertised=(ash, ash, cedar, eclat)), Inconsistent)
    yield case("the receiver shown, too", replaced(good, advertised=(ash, birch, cedar, eclat)), Inconsistent)
    yield case("another entry of a neighbour", replaced(good, entries=bytes(32) + good.entries[32:]), Inconsistent)
    flipped = good.entries[:32] + bytes(32) + good.entries[64:]
    yield case("another entry of the receiver", replaced(good, entries=flipped), Inconsistent)
    for wrong, fake, error in fake_keys(made, other):
        yield case(wrong, key_list([*listed[:3], ("éclat", fake)], [ash, cedar, fake]), error)


def replaced(request: SharesRequest, **changes: object) -> SharesRequest:
    return msgspec.structs.replace(request, **changes)


def fake_keys(made: Transcript, other: Transcript) -> Iterator[tuple[str, Envelope, Error]]:
    """What may stand in éclat's place."""
    honest = made.reply(Step.KEYS, "éclat")
    theirs, own = (unpack(made.reply(Step.KEYS, name).parts[0], Advertised) for name in ("ash", VICTIM))
    fresh = [AgreementKey(bytes([i]) * 32).public for i in (1, 2)]

    def keys(mask: bytes, share: bytes, **changes: str) -> Envelope:
        return signed("éclat", Step.KEYS, b"", pack(Advertised(mask, share, b"")), **changes)

    yield "keys signed by another", keys(*fresh, signer="cedar"), Forged
    yield "keys that are not those signed", Envelope(honest.signed, made.reply(Step.KEYS, "ash").parts), Forged
    yield "no signature", Envelope(Signed(honest.signed.header, b""), honest.parts), Forged
    yield "no header", Envelope(Signed(b"", honest.signed.signature), honest.parts), MalformedMessage
    yield "keys of another attempt", other.reply(Step.KEYS, "éclat"), Inconsistent
    yield "another step", signed("éclat", Step.JOIN, b"", honest.parts[0]), Inconsistent
    for field, long in {"session": bytes(33), "keys": bytes(33), "seed": bytes(33), "sender": "é" * 256}.items():
        header = msgspec.structs.replace(Header(terms().session, Step.KEYS, "éclat", b"", b"", b""), **{field: long})
        given = envelope(identity("éclat"), header, honest.parts)
        yield f"a header with too long a {field}", given, MalformedMessage
    yield "two parts", signed("éclat", Step.KEYS, b"", honest.parts[0], b""), MalformedMessage
    yield "no keys in it", signed("éclat", Step.KEYS, b"", b""), MalformedMessage
    yield "a key of another", keys(theirs.mask_key, fresh[0]), Inconsistent
    yield "the receiver's key", keys(fresh[0], own.share_key), Inconsistent
    yield "one key for both", keys(fresh[0], fresh[0]), Inconsistent
    yield "a share key of low order", keys(fresh[0], LOW_ORDER), Forged
    yield "a share key of 31 bytes", keys(fresh[0], fresh[1][:31]), Forged


# ---- exchange 2


def dealings(made: Transcript, other: Transcript) -> Iterator[Case]:
    dealt = decode(made.requests[Step.INPUT][VICTIM], InputRequest).dealt
    for_cedar = decode(made.requests[Step.INPUT][DROPPED], InputRequest).dealt[0]
    old = decode(other.requests[Step.INPUT][VICTIM], InputRequest).dealt[0]
    first = dealt[0]
    altered = first.part[:10] + bytes([first.part[10] ^ 1]) + first.part[11:]
    broken = Signed(first.signed.header, bytes(64))
    for wrong, shared, given, error in (
        ("too many marks", EVERYBODY + b"\0", dealt, MalformedMessage),
        ("a mark beyond the last member", b"\x1f", dealt, MalformedMessage),
        ("the receiver not marked", b"\x0d", dealt, Inconsistent),
        ("fewer than the threshold", b"\x03", dealt[:1], Inconsistent),
        ("an extract missing", EVERYBODY, dealt[:2], Inconsistent),
        ("an extract too many", EVERYBODY, (*dealt, first), Inconsistent),
        ("one of a client that is not marked", mark(NAMES, NAMES[:3]), dealt, Inconsistent),
        ("extracts out of order", EVERYBODY, (dealt[1], first, dealt[2]), Inconsistent),
        ("the part for another", EVERYBODY, (for_cedar, *dealt[1:]), Inconsistent),
        ("the part of another attempt", EVERYBODY, (old, *dealt[1:]), Inconsistent),
        ("an altered part", EVERYBODY, (changed(first, part=altered), *dealt[1:]), Forged),
        ("an altered part, unsigned", EVERYBODY, (changed(first, part=altered, signed=broken), *dealt[1:]), Forged),
        ("an altered part, no such leaf", EVERYBODY, (changed(first, part=b"", index=4), *dealt[1:]), MalformedMessage),
        (
            "an altered part, a short path",
            EVERYBODY,
            (changed(first, part=b"", path=b""), *dealt[1:]),
            MalformedMessage,
        ),
    ):
        yield Case(wrong, 2, encode(InputRequest(shared, given)), error)


def changed(given: Extract, **changes: object) -> Extract:
    return msgspec.structs.replace(given, **changes)


def complaint(made: Transcript) -> Json:
    """Not refused but answered: a dealer signed what is no share."""
    honest = made.reply(Step.SHARES, "ash")
    parts = (honest.parts[0], pack(Dealt(b"no share", bytes(32), bytes(32))), *honest.parts[2:])
    dealing = signed("ash", Step.SHARES, made.keys, *parts)
    dealt = decode(made.requests[Step.INPUT][VICTIM], InputRequest).dealt
    request = encode(InputRequest(EVERYBODY, (extract(dealing, tree_of(parts), 1), *dealt[1:])))
    reply = signed(VICTIM, Step.COMPLAINT, made.members, pack(Complaint(("ash",))))
    return {"to": VICTIM, "after": 2, "message": request.hex(), "reply": encode(reply).hex()}


# ---- exchanges 3 and 4


def survivor_sets(made: Transcript) -> Iterator[Case]:
    dealt = decode(made.requests[Step.INPUT][VICTIM], InputRequest).dealt
    without_cedar = encode(InputRequest(SURVIVORS, (dealt[0], dealt[2])))
    for wrong, survivors, error in (
        ("too many marks", EVERYBODY + b"\0", MalformedMessage),
        ("no marks", b"", MalformedMessage),
        ("a mark beyond the last member", b"\x1f", MalformedMessage),
        ("the receiver not marked", mark(NAMES, NEAR), Inconsistent),
        ("fewer than the threshold", mark(NAMES, NAMES[:2]), Inconsistent),
        ("nobody", b"\0", Inconsistent),
    ):
        yield Case(wrong, 3, encode(ConsistencyRequest(survivors)), error)
    late = encode(ConsistencyRequest(EVERYBODY))
    yield Case("a survivor who dealt no shares", 2, late, Inconsistent, then=(without_cedar,))


def long_consent(statement: bytes, keys: bytes) -> Signed:
    return signed("éclat", Step.CONSISTENCY, keys, statement, seed=bytes(33)).signed


def consents(made: Transcript, other: Transcript) -> Iterator[Case]:
    ash, birch, eclat = decode(made.requests[Step.UNMASK][VICTIM], UnmaskRequest).consents
    statement = made.reply(Step.CONSISTENCY, "ash").parts[0]
    keys = made.members
    for wrong, given, error in (
        ("no signatures", [], Inconsistent),
        ("one fewer than the threshold", [ash, birch], Inconsistent),
        ("one of them twice", [ash, birch, birch], Inconsistent),
        ("enough, and one twice", [ash, birch, eclat, eclat], Inconsistent),
        ("one over another set", [ash, birch, signed("éclat", Step.CONSISTENCY, keys, b"else").signed], Inconsistent),
        ("one of a dropout", [ash, birch, signed(DROPPED, Step.CONSISTENCY, keys, statement).signed], Inconsistent),
        ("one of a stranger", [ash, birch, signed("x", Step.CONSISTENCY, keys, statement).signed], Inconsistent),
        ("one of exchange 2", [ash, birch, made.reply(Step.INPUT, "éclat").signed], Inconsistent),
        ("one of another attempt", [ash, birch, other.reply(Step.CONSISTENCY, "éclat").signed], Inconsistent),
        ("one that does not verify", [ash, birch, Signed(eclat.header, bytes(64))], Forged),
        ("one that is none", [ash, birch, Signed(b"", b"")], MalformedMessage),
        ("one with too long a header", [ash, birch, long_consent(statement, keys)], MalformedMessage),
    ):
        yield Case(wrong, 4, encode(UnmaskRequest(tuple(given))), error)
