"""What the server must take as a fault of its sender, and what ends an attempt with a name.

The server has taken in the replies of the first ``after`` exchanges of the pinned session's transcript.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocols.aggregation.messages import Advertised, Complaint, Envelope, KeysRequest, Opened
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.primitives import AgreementKey
from protocols.wire import Message, encode
from tests.vectors.refusals import Error, fake_keys, pack, unpack
from tests.vectors.session import ANNOUNCEMENT, Json, Transcript, record, signed

# Whose reply is wrong: the last that the server takes in.
SENDER = "éclat"


def faulty() -> Json:
    made, other = record(), record(attempt=2)
    cases = [*faulty_keys(made, other), *faulty_shares(made), *faulty_inputs(made), *faulty_ends(made)]
    return {"cases": cases, "blamed": blamed(made)}


def fault(wrong: str, step: Step, reply: Message, error: Error) -> Json:
    return {"wrong": wrong, "after": int(step), "from": SENDER, "reply": encode(reply).hex(), "error": error.__name__}


def faulty_keys(made: Transcript, other: Transcript) -> Iterator[Json]:
    for wrong, envelope, error in fake_keys(made, other):
        if wrong != "the receiver's key":
            yield fault(wrong, Step.KEYS, envelope, error)
    yield fault("an envelope of another", Step.KEYS, made.reply(Step.KEYS, "cedar"), Inconsistent)
    long = pack(Advertised(AgreementKey(bytes(32)).public, AgreementKey(b"\1" * 32).public, bytes(1025)))
    yield fault("a witness of 1025 bytes", Step.KEYS, signed(SENDER, Step.KEYS, b"", long), MalformedMessage)
    yield fault("no envelope", Step.KEYS, KeysRequest(ANNOUNCEMENT), MalformedMessage)


def faulty_shares(made: Transcript) -> Iterator[Json]:
    parts, keys = made.reply(Step.SHARES, SENDER).parts, made.keys
    for wrong, list_digest, given, error in (
        ("another key list", bytes(32), parts, Inconsistent),
        ("a part short", keys, parts[:-1], MalformedMessage),
        ("a commitment of 31 bytes", keys, (parts[0][1:], *parts[1:]), MalformedMessage),
        ("a part of 1025 bytes", keys, (*parts[:-1], bytes(1025)), MalformedMessage),
        ("a part that is no dealing", keys, (*parts[:-1], b""), MalformedMessage),
    ):
        yield fault(wrong, Step.SHARES, signed(SENDER, Step.SHARES, list_digest, *given), error)


def faulty_inputs(made: Transcript) -> Iterator[Json]:
    (vector,), keys = made.reply(Step.INPUT, SENDER).parts, made.keys
    for wrong, reply, error in (
        ("a vector too short", signed(SENDER, Step.INPUT, keys, vector[:-1]), MalformedMessage),
        ("two vectors", signed(SENDER, Step.INPUT, keys, vector, vector), MalformedMessage),
        ("a seed", signed(SENDER, Step.INPUT, keys, vector, seed=b"seed"), MalformedMessage),
        ("a complaint about nobody", accusing(keys), Inconsistent),
        ("a complaint about oneself", accusing(keys, SENDER), Inconsistent),
        ("a complaint about a stranger", accusing(keys, "ash", "x"), Inconsistent),
        ("a complaint in another key list", accusing(bytes(32), "ash"), Inconsistent),
        ("a complaint", accusing(keys, "ash"), Inconsistent),
    ):
        yield fault(wrong, Step.INPUT, reply, error)


def accusing(keys: bytes, *dealers: ClientId) -> Envelope:
    return signed(SENDER, Step.COMPLAINT, keys, pack(Complaint(dealers)))


def faulty_ends(made: Transcript) -> Iterator[Json]:
    keys = made.keys
    opened = unpack(made.reply(Step.UNMASK, SENDER).parts[0], Opened).shares
    swapped = (opened[1], opened[0], *opened[2:])
    elsewhere = signed(SENDER, Step.CONSISTENCY, keys, b"another survivor set")
    yield fault("another survivor set", Step.CONSISTENCY, elsewhere, Inconsistent)
    for wrong, shares, error in (
        ("a share short", opened[:-1], MalformedMessage),
        ("a share too many", (*opened, opened[0]), MalformedMessage),
        ("shares in another order", swapped, Forged),
        ("a share altered", (bytes(33), *opened[1:]), Forged),
    ):
        yield fault(wrong, Step.UNMASK, signed(SENDER, Step.UNMASK, keys, pack(Opened(shares))), error)


def blamed(made: Transcript) -> list[Json]:
    """Replies to the last exchange after which the server aborts and names a client: its own share is wrong."""
    opened = unpack(made.reply(Step.UNMASK, SENDER).parts[0], Opened).shares
    aborting = []
    for wrong, share in (("another element", bytes(33)), ("no element of the field", b"\xff" * 33), ("no share", b"")):
        body = pack(Opened((*opened[:-1], share)))
        reply = encode(signed(SENDER, Step.UNMASK, made.keys, body))
        replies = {name: data.hex() for name, data in made.replies[Step.UNMASK].items()} | {SENDER: reply.hex()}
        aborting.append({"wrong": wrong, "after": 4, "replies": replies, "error": "RoundAborted", "blamed": SENDER})
    return aborting
