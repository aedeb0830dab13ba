"""What the server must take as a fault of its sender, and what ends an attempt with a name.

The server has taken in the replies of the first ``after`` exchanges of the pinned session's transcript.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from protocols.aggregation.disputes import suspects
from protocols.aggregation.messages import Advertised, Complaint, Envelope, KeysRequest, Opened, membership_digest
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage, RoundAborted
from protocols.primitives import AgreementKey
from protocols.wire import Message, encode
from tests.vectors.refusals import SURVIVORS, Error, fake_keys, pack, unpack
from tests.vectors.session import ANNOUNCEMENT, NAMES, Json, Transcript, record, signed, stages

# Whose reply is wrong: the last that the server takes in.
SENDER = "éclat"


def faulty() -> Json:
    made, other = record(), record(attempt=2)
    cases = [*faulty_keys(made, other), *faulty_shares(made), *faulty_inputs(made), *faulty_ends(made)]
    return {"cases": cases, "limits": limits(made), "ends": list(ends(made)), "disputes": disputed()}


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
    (vector,), members = made.reply(Step.INPUT, SENDER).parts, made.members
    for wrong, reply, error in (
        ("an input that names the key list only", signed(SENDER, Step.INPUT, made.keys, vector), Inconsistent),
        ("an input of who was shown other sharers", signed(SENDER, Step.INPUT, others(made), vector), Inconsistent),
        ("a vector too short", signed(SENDER, Step.INPUT, members, vector[:-1]), MalformedMessage),
        ("two vectors", signed(SENDER, Step.INPUT, members, vector, vector), MalformedMessage),
        ("a seed", signed(SENDER, Step.INPUT, members, vector, seed=b"seed"), MalformedMessage),
        ("a complaint about nobody", accusing(SENDER, members), Inconsistent),
        ("a complaint about oneself", accusing(SENDER, members, SENDER), Inconsistent),
        ("a complaint about a stranger", accusing(SENDER, members, "ash", "x"), Inconsistent),
        ("a complaint in another key list", accusing(SENDER, bytes(32), "ash"), Inconsistent),
        ("a complaint of who was shown other sharers", accusing(SENDER, others(made), "ash"), Inconsistent),
        ("a complaint", accusing(SENDER, members, "ash"), Inconsistent),
    ):
        yield fault(wrong, Step.INPUT, reply, error)


def others(made: Transcript) -> bytes:
    """What headers name if the dropout is taken for one who dealt nothing."""
    return membership_digest(made.keys, SURVIVORS)


def accusing(sender: ClientId, members: bytes, *dealers: ClientId) -> Envelope:
    return signed(sender, Step.COMPLAINT, members, pack(Complaint(dealers)))


def faulty_ends(made: Transcript) -> Iterator[Json]:
    members, opened = made.members, shares_opened(made, SENDER)
    statement = made.reply(Step.CONSISTENCY, SENDER).parts[0]
    for wrong, named, signed_statement in (
        ("another survivor set", members, b"another survivor set"),
        ("a statement of who was shown other sharers", others(made), statement),
    ):
        yield fault(wrong, Step.CONSISTENCY, signed(SENDER, Step.CONSISTENCY, named, signed_statement), Inconsistent)
    for wrong, named, shares, error in (
        ("shares of who was shown other sharers", others(made), opened, Inconsistent),
        ("a share short", members, opened[:-1], MalformedMessage),
        ("a share too many", members, (*opened, opened[0]), MalformedMessage),
        ("shares in another order", members, (opened[1], opened[0], *opened[2:]), Forged),
        ("a share altered", members, (bytes(33), *opened[1:]), Forged),
    ):
        yield fault(wrong, Step.UNMASK, signed(SENDER, Step.UNMASK, named, pack(Opened(shares))), error)


def shares_opened(made: Transcript, name: ClientId) -> tuple[bytes, ...]:
    return unpack(made.reply(Step.UNMASK, name).parts[0], Opened).shares


def limits(made: Transcript) -> list[int]:
    """The longest reply that is read in each exchange of the pinned session, in bytes."""
    return [stage.largest for stage in stages(made.replies)]


# ---- what ends an attempt


def ends(made: Transcript) -> Iterator[Json]:
    """Replies after which the server aborts, whom it then names, and whom it would leave out over disputes."""
    for wrong, share in (("another element", bytes(33)), ("no element of the field", b"\xff" * 33), ("no share", b"")):
        yield end(f"{wrong} kept", made, Step.UNMASK, {SENDER: kept(made, SENDER, share)}, blamed=[SENDER])
    two = {name: kept(made, name, bytes(33)) for name in ("birch", SENDER)}
    yield end("two kept other elements", made, Step.UNMASK, two, blamed=sorted(two))
    one = {SENDER: accusing(SENDER, made.members, "ash")}
    yield end("one complains about one", made, Step.INPUT, one, suspects=["ash", SENDER])
    both = {SENDER: accusing(SENDER, made.members, "ash", "birch")}
    yield end("one complains about two", made, Step.INPUT, both, suspects=[SENDER])
    two = {name: accusing(name, made.members, "ash") for name in ("birch", SENDER)}
    yield end("two complain about one", made, Step.INPUT, two, blamed=["ash"], suspects=["ash"])


def end(
    wrong: str,
    made: Transcript,
    step: Step,
    replies: Mapping[ClientId, Envelope],
    blamed: Sequence[ClientId] = (),
    suspects: Sequence[ClientId] = (),
) -> Json:
    given = {name: encode(reply) for name, reply in replies.items()}
    return {
        "wrong": wrong,
        "after": int(step),
        "replies": {name: data.hex() for name, data in (made.replies[step] | given).items()},
        "error": RoundAborted.__name__,
        "blamed": blamed,
        "suspects": suspects,
    }


def kept(made: Transcript, name: ClientId, share: bytes) -> Envelope:
    """What ``name`` opens, with another share in place of that which it kept for itself."""
    place = NAMES.index(name)
    opened = shares_opened(made, name)
    return signed(name, Step.UNMASK, made.members, pack(Opened((*opened[:place], share, *opened[place + 1 :]))))


# Dealers and who complains about them.
DISPUTES: tuple[Mapping[ClientId, Sequence[ClientId]], ...] = (
    {},
    {"a": ["b"]},
    {"a": ["b", "c"]},
    {"a": ["c"], "b": ["c"]},
    {"a": ["b"], "c": ["d"]},
    {"a": ["b", "c"], "d": ["c", "e"], "e": ["f"]},
    {"a": ["b"], "b": ["a"], "c": ["a"]},
    {"a": ["c", "d"], "b": ["c", "d"]},
    {"a": ["b", "c", "d"], "b": ["e"], "f": ["e"]},
)


def disputed() -> list[Json]:
    return [{"disputes": disputes, "suspects": sorted(suspects(disputes))} for disputes in DISPUTES]
