"""Everything in the project that takes bytes from another party, each with real bytes to start from. Not a test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from protocols import shamir
from protocols.aggregation.apply import check_agreed, sum_digest, verified_sum
from protocols.aggregation.collect import collect
from protocols.aggregation.marks import mark, marked
from protocols.aggregation.messages import (
    ApplyRequest,
    DecryptRequest,
    Envelope,
    Extract,
    InputRequest,
    SharesRequest,
    Signed,
    UnmaskRequest,
)
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.delivery.client import extracts_by_receiver, give, open_model, receive
from protocols.delivery.messages import InstallModelRequest, MakeKeyRequest, ShareKeyRequest
from protocols.encoding.ckks import CKKSKey
from protocols.encoding.rlwe import PRIMES
from protocols.errors import ProtocolError, SessionSpent
from protocols.merkle import climb
from protocols.ring import Ring
from protocols.wire import Message, decode, encode
from securefl.announcement import Announcement, KeyReceived
from tests.protocols.cohort import identity, names, roster
from tests.protocols.fuzz.corpus import (
    CELLS,
    COUNT,
    DIMENSION,
    KEY_ID,
    KEY_SESSION,
    MODEL_SESSION,
    TAG_KEY,
    VICTIM,
    Recorded,
    announcement,
    bodies,
    given,
    handed,
    key_package,
    messages,
    one_use_key,
    random,
    recorded,
    steps,
)
from tests.protocols.fuzz.relays import relays

# What a server makes of a reply that it does not accept: it raises nothing, so that the others' replies count.
FAULT = "fault of its sender"

# What was said in a round, one way.
Said = Mapping[tuple[Step, ClientId], bytes]


@dataclass(frozen=True)
class Reader:
    """Something that reads bytes from outside, and real bytes for it to start from."""

    name: str
    seeds: Sequence[bytes] = field(repr=False)
    read: Callable[[bytes], object]


def readers() -> tuple[Reader, ...]:
    """Everything in the project that takes bytes from another party."""
    decoders = [
        Reader(message.__name__, seeds, lambda data, m=message: _decoded(data, m))  # type: ignore[misc]
        for message, seeds in messages().items()
    ]
    whole = [
        Reader(f"body {body.__name__}", seeds, lambda data, b=body: read([data], b))  # type: ignore[misc]
        for body, seeds in bodies().items()
    ]
    return (
        *decoders,
        *whole,
        *_parts(),
        *_signatures(),
        *_deliveries(),
        *_applications(),
        *_clients(),
        *_servers(),
        *_relays(),
    )


def _decoded(data: bytes, expected: type[Message]) -> Message:
    message = decode(data, expected)
    assert data.startswith(b"SF\x01" + bytes([expected.KIND]))
    return message


def _parts() -> list[Reader]:
    vectors = {
        ring: tuple(ring.pack(ring.zeros(DIMENSION) + np.array(k, ring.dtype)) for k in (0, 1, ring.modulus - 1))
        for ring in (*map(Ring, (1 << 16, 1 << 24, 1 << 32, *PRIMES.values())),)
    }
    rings = [
        Reader(f"ring {ring.modulus}", seeds, lambda data, r=ring: _same(data, _reduced(r, data)))  # type: ignore[misc]
        for ring, seeds in vectors.items()
    ]
    shares = tuple(shamir.split(bytes(32), 4, range(1, 6), random(300)).values())
    lagrange = shamir.coefficients(range(1, 5))
    few, many = names(COUNT), names(1001)
    return [
        *rings,
        Reader("marks", (b"\x1f", b"\x03"), lambda data: _same(data, mark(few, marked(few, data)))),
        Reader("marks of 1001", (b"\xff" * 125 + b"\x01",), lambda data: _same(data, mark(many, marked(many, data)))),
        Reader("share", shares, lambda data: _same(data, (shamir.element(data) % shamir.PRIME).to_bytes(33, "big"))),
        Reader("shares", (b"".join(shares[:4]),), lambda data: shamir.join(_quarters(data), lagrange)),
        Reader("key package", (key_package(),), lambda data: _same(data, CKKSKey.from_bytes(data).to_bytes())),
    ]


def _same(data: bytes, again: bytes) -> bytes:
    """What is taken has one encoding; else one thing could be said, signed and hashed in two ways."""
    assert data == again
    return data


def _reduced(ring: Ring, data: bytes) -> bytes:
    vector = ring.unpack(data, DIMENSION).copy()
    ring.reduce(vector)
    return ring.pack(vector)


def _quarters(data: bytes) -> dict[int, bytes]:
    return {x: data[33 * (x - 1) : 33 * x if x < 4 else None] for x in range(1, 5)}


def _signatures() -> list[Reader]:
    terms, wire = recorded("secagg").terms, recorded("secagg").wire
    replies = {step: decode(wire.replies[step, VICTIM], Envelope) for step in steps(terms)}
    shares, consent = replies[Step.SHARES], replies[Step.CONSISTENCY]
    signed = tuple(msgspec.msgpack.encode(reply.signed) for reply in (consent, *replies.values()))
    extracts = tuple(
        msgspec.msgpack.encode(extract)
        for name in names(COUNT)
        for extract in decode(wire.requests[Step.INPUT, name], InputRequest).dealt
    )

    def opened(data: bytes) -> object:
        return decode(data, Envelope).open(terms.roster, terms.session, Step.SHARES, VICTIM)

    def climbed(data: bytes) -> object:
        given = read([data], Extract)
        root = climb(given.part, given.index, given.parts, given.path)
        assert 0 <= given.index < given.parts  # one place, and no other way to say it
        return root

    return [
        Reader("signature", signed, lambda data: read([data], Signed).authenticate(terms.roster)),
        Reader("signature of this session", signed, lambda data: _signed(terms, data)),
        Reader("envelope", tuple(encode(reply) for reply in (shares, *replies.values())), opened),
        Reader("extract", extracts, lambda data: read([data], Extract).open(terms.roster, terms.session, Step.SHARES)),
        Reader("proof", extracts, climbed),
    ]


def _signed(terms: Terms, data: bytes) -> object:
    signed = read([data], Signed)
    return signed.says(Step.COMPLAINT), signed.open(terms.roster, terms.session, Step.CONSISTENCY)


def _deliveries() -> list[Reader]:
    by_receiver = {name: msgspec.msgpack.encode(part) for name, part in extracts_by_receiver(given()).items()}
    parts = (by_receiver[VICTIM], *by_receiver.values())
    requests = messages()

    def received(data: bytes) -> object:
        return receive(VICTIM, KEY_SESSION, roster(COUNT), one_use_key(VICTIM), read([data], Extract))

    def sealed(data: bytes, asked: type[MakeKeyRequest | ShareKeyRequest]) -> object:
        wanted = decode(data, asked).joined
        return give("c0", identity("c0"), KEY_SESSION, roster(COUNT), wanted, KEY_ID, key_package(), random(400))

    def opened(data: bytes) -> bytes:
        return open_model(MODEL_SESSION, roster(COUNT), TAG_KEY, decode(data, InstallModelRequest).checkpoint)

    return [
        Reader("delivered part", parts, received),
        Reader("join list", requests[MakeKeyRequest], lambda data: sealed(data, MakeKeyRequest)),
        Reader("join list of late ones", requests[ShareKeyRequest], lambda data: sealed(data, ShareKeyRequest)),
        Reader("delivery", (encode(given()),), lambda data: extracts_by_receiver(decode(data, Envelope))),
        Reader("checkpoint", requests[InstallModelRequest], opened),
    ]


def _applications() -> list[Reader]:
    terms, requests = recorded("residues").terms, messages()
    word = KeyReceived(bytes(32), 3, bytes(32)).encoded()
    asked = sum_digest(handed())

    def agreeing(data: bytes) -> None:
        check_agreed(terms, asked, decode(data, DecryptRequest).agreed, 3)

    own = announcement().encoded()
    return [
        Reader("sum", requests[ApplyRequest], lambda data: verified_sum(terms, decode(data, ApplyRequest))),
        Reader("agreement", requests[DecryptRequest], agreeing),
        Reader("announcement", (own,), lambda data: Announcement.decoded(data).vector()),
        Reader("key received", (word,), KeyReceived.decoded),
    ]


# ---- sessions


def _clients() -> list[Reader]:
    return [
        Reader(
            f"client, {cell}, exchange {step:d}",
            _with_replays(recorded(cell).wire.requests, recorded(cell, attempt=2).wire.requests, step),
            lambda data, cell=cell, step=step: _handled(recorded(cell), step, data),  # type: ignore[misc]
        )
        for cell in CELLS
        for step in steps(recorded(cell).terms)
    ]


def _with_replays(own: Said, other: Said, step: Step) -> tuple[bytes, ...]:
    """A message of the victim's, mostly; its others, its neighbours', and what it was in another session."""
    its = tuple(data for (_, name), data in own.items() if name == VICTIM)
    return (*(own[step, VICTIM],) * 9, *its, own[step, "c0"], own[step, "c2"], other[step, VICTIM])


def _handled(round: Recorded, step: Step, data: bytes) -> bytes:
    """The reply of a client that has come to this exchange. After an error it must be spent."""
    client = copy.copy(round.wire.before[step, VICTIM])
    try:
        reply = client.handle(data)
        assert _as_good(step, data, round)
        return reply
    except ProtocolError:
        with pytest.raises(SessionSpent):
            client.handle(round.wire.requests[step, VICTIM])
        raise


def _as_good(step: Step, data: bytes, round: Recorded) -> bool:
    """Whether a changed request that was answered asks for no more than the real one did.

    A smaller survivor set may be signed, and which t of the signatures over it are shown does not matter.
    """
    real = round.wire.requests[step, VICTIM]
    match step:
        case Step.SHARES:
            return decode(data, SharesRequest) == decode(real, SharesRequest)
        case Step.INPUT:
            given, asked = decode(data, InputRequest), decode(real, InputRequest)
            return (given.shared, [e.part for e in given.dealt]) == (asked.shared, [e.part for e in asked.dealt])
        case Step.UNMASK:
            all_consents = {
                decode(round.wire.replies[Step.CONSISTENCY, name], Envelope).signed for name in names(COUNT)
            }
            shown = decode(data, UnmaskRequest).consents
            return set(shown) <= all_consents and len(set(shown)) >= round.terms.rules.threshold_for(COUNT)
        case _:
            return True


class _Listening:
    """A server in the middle of an exchange. What an outsider makes of a reply is the reply itself or is refused."""

    def __init__(self, round: Recorded, step: Step) -> None:
        self._round = round
        self._step = step
        self._stage = round.server_at(step)._stage

    def __call__(self, data: bytes) -> str:
        faults: dict[ClientId, str] = {}
        collect([(VICTIM, data)], self._stage, faults)
        if VICTIM in self._stage.accepted:
            assert decode(data, Envelope) == decode(self._round.wire.replies[self._step, VICTIM], Envelope)
            self._stage = self._round.server_at(self._step)._stage
            return "taken"
        assert set(faults) == {VICTIM}
        return FAULT


def _servers() -> list[Reader]:
    return [
        Reader(
            f"server, {cell}, exchange {step:d}",
            _with_replays(recorded(cell).wire.replies, recorded(cell, attempt=2).wire.replies, step),
            _Listening(recorded(cell), step),
        )
        for cell in CELLS
        for step in steps(recorded(cell).terms)
    ]


def _relays() -> list[Reader]:
    others = tuple(reply for relay in relays() for reply in relay.replies.values())
    return [
        Reader(
            f"server, {relay.name}",
            (*(relay.replies[VICTIM],) * 20, *others),
            lambda data, relay=relay: "taken" if relay.takes(data) else FAULT,  # type: ignore[misc]
        )
        for relay in relays()
    ]
