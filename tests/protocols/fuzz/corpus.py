"""Real messages and everything that reads them: where fuzzing starts from. Not a test.

All keys come from a seeded generator, so that one seed gives the same bytes on every machine. CKKS itself draws from
SEAL; where its ring and its seeds matter, they come with vectors that nobody encrypted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from protocols import shamir
from protocols.aggregation.apply import Applied, apply_request, verified_sum
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.collect import collect
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import (
    Advertised,
    Complaint,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    KeysRequest,
    Opened,
    Refusal,
    SharePair,
    Signed,
    envelope,
)
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Context, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.aggregation.verify import read
from protocols.base import ClientId, Random, drive
from protocols.delivery.client import extracts_by_receiver, give, join, receive
from protocols.delivery.messages import (
    CatchUpRequest,
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    Package,
    ReceiveKeyRequest,
    SealModelRequest,
    key_setup,
)
from protocols.encoding import Encoded, Encoding, Floats, Layout, Upload
from protocols.encoding.ckks import CKKSKey
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import DEGREE, PRIME
from protocols.errors import ProtocolError, SessionSpent
from protocols.graph import CohortRules
from protocols.masking import expand
from protocols.merkle import climb
from protocols.primitives import AgreementKey, digest
from protocols.ring import Ring, RingVector
from protocols.wire import Message, decode, encode, kind
from securefl import SGD, LocalOptimizer
from securefl.announcement import Announcement, KeyReceived
from securefl.plan import Plan
from tests.protocols.cohort import Wire, identity, names, roster

COUNT, DIMENSION = 5, 6
VICTIM = "c1"
CELLS = ("plain", "secagg", "residues")
# What a server makes of a reply that it does not accept: it raises nothing, so that the others' replies count.
FAULT = "fault of its sender"


@dataclass(frozen=True)
class Reader:
    """Something that reads bytes from outside, and real bytes for it to start from."""

    name: str
    seeds: Sequence[bytes] = field(repr=False)
    read: Callable[[bytes], object]


def random(seed: int) -> Random:
    return np.random.default_rng(seed).bytes


# ---- whole rounds


@dataclass(frozen=True)
class Residues:
    """Uniform residues modulo the prime of CKKS and a public seed, as an encryption looks to all but key holders."""

    layout: Layout = field(default_factory=lambda: Layout(Ring(PRIME), DIMENSION, COUNT, 32, digest("residues")))

    def encode(self, update: Floats, weight: float, session: bytes, sender: ClientId, random: Random) -> Encoded:
        return Encoded(expand(self.layout.ring, random(16), DIMENSION), random(32))

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        raise NotImplementedError("nobody holds a key")


@dataclass(frozen=True)
class Recorded:
    """One round: its terms, all that was said, and its result."""

    terms: Terms
    wire: Wire
    aggregate: Aggregate

    def server_at(self, step: Step) -> AggregationServer:
        """A server that has come to this exchange."""
        server = AggregationServer(self.terms, dict.fromkeys(names(COUNT), b"announcement"))
        server.open()
        for earlier in steps(self.terms):
            if earlier == step:
                break
            server.advance([(name, self.wire.replies[earlier, name]) for name in names(COUNT)])
        return server


def steps(terms: Terms) -> tuple[Step, ...]:
    every = (Step.KEYS, Step.SHARES, Step.INPUT, Step.CONSISTENCY, Step.UNMASK)
    return every if terms.masked else (Step.KEYS, Step.INPUT)


@cache
def recorded(cell: str) -> Recorded:
    """A whole round of five."""
    coder: Encoding = Residues() if cell == "residues" else FixedPoint(DIMENSION, 4.0, COUNT)
    context = Context("run", 1, 1, b"plan", roster(COUNT).digest, b"model")
    terms = Terms(context, roster(COUNT), CohortRules(), coder.layout, cell != "plain")
    clients = {
        name: AggregationClient(
            name, identity(name), terms, coder, Contribution(lambda: np.ones(DIMENSION)), random(seed)
        )
        for seed, name in enumerate(names(COUNT))
    }
    wire = Wire(clients)
    aggregate = drive(AggregationServer(terms, dict.fromkeys(clients, b"announcement")), wire)
    return Recorded(terms, wire, aggregate)


# ---- deliveries

PURPOSE = key_setup("run", b"plan", roster(COUNT))


@cache
def one_use_key(name: ClientId) -> AgreementKey:
    return AgreementKey.generate(random(100 + int(name[1:])))


@cache
def joined() -> tuple[Envelope, ...]:
    return tuple(join(name, identity(name), PURPOSE, one_use_key(name)) for name in names(COUNT))


@cache
def given() -> Envelope:
    return give("c0", identity("c0"), PURPOSE, roster(COUNT), joined(), b"about", bytes(64), random(200))


def evidence() -> tuple[Envelope, ...]:
    body = msgspec.msgpack.encode(Applied(bytes(32), 0.9))
    session = recorded("residues").terms.session
    return tuple(
        envelope(identity(name), Header(session, Step.APPLY, name, b"", b"", b""), [body]) for name in names(COUNT)
    )


# ---- all messages, all bodies


@cache
def messages() -> dict[type[Message], tuple[bytes, ...]]:
    """Real messages of every kind."""
    found: dict[type[Message], list[bytes]] = {}

    def add(*several: Message) -> None:
        for message in several:
            found.setdefault(type(message), []).append(encode(message))

    for cell in CELLS:
        wire = recorded(cell).wire
        every = {request.KIND: request for request in Message.__subclasses__()}
        for data in (*wire.requests.values(), *wire.replies.values()):
            add(decode(data, every[kind(data)]))
    part = extracts_by_receiver(given())[VICTIM]
    add(apply_request(recorded("residues").terms, recorded("residues").aggregate.sum), Refusal("spent"))
    add(JoinRequest(announcement().encoded()), KeysRequest(announcement().encoded()), CatchUpRequest("run", 3))
    add(MakeKeyRequest("run", joined()), ReceiveKeyRequest("run", part), SealModelRequest("run", 3, joined()))
    add(InstallModelRequest("run", 3, part, evidence()), given(), *joined(), *evidence())
    return {message: tuple(several) for message, several in found.items()}


def announcement() -> Announcement:
    plan = Plan(
        "job", "secagg", names(COUNT), (1.0,) * COUNT, 4.0, 3, None, SGD(sampling_rate=0.5, steps=2),
        LocalOptimizer(0.5), "0b" * 32, DIMENSION, 1,
    )  # fmt: skip
    return Announcement("run", 1, 1, plan, np.ones(DIMENSION, "<f4").tobytes(), b"tag")


def bodies() -> dict[type, tuple[bytes, ...]]:
    replies = recorded("secagg").wire.replies
    parts = {step: decode(replies[step, VICTIM], Envelope).parts for step in steps(recorded("secagg").terms)}
    return {
        Advertised: parts[Step.KEYS],
        Dealt: parts[Step.SHARES][1:],
        Opened: parts[Step.UNMASK],
        SharePair: (msgspec.msgpack.encode(SharePair(bytes(33), bytes(33))),),
        Complaint: (msgspec.msgpack.encode(Complaint(("c0", "c2"))),),
        Applied: evidence()[0].parts,
        Package: given().parts,
    }


# ---- all readers


def readers() -> tuple[Reader, ...]:
    """Everything in the project that takes bytes from another party."""
    decoders = [
        Reader(message.__name__, seeds, lambda data, m=message: decode(data, m))  # type: ignore[misc]
        for message, seeds in messages().items()
    ]
    whole = [
        Reader(f"body {body.__name__}", seeds, lambda data, b=body: read([data], b))  # type: ignore[misc]
        for body, seeds in bodies().items()
    ]
    return (*decoders, *whole, *_parts(), *_signatures(), *_deliveries(), *_applications(), *_clients(), *_servers())


def _parts() -> list[Reader]:
    vectors = {
        ring: tuple(ring.pack(ring.zeros(DIMENSION) + np.array(k, ring.dtype)) for k in (0, 1, ring.modulus - 1))
        for ring in (Ring(1 << 16), Ring(1 << 24), Ring(1 << 32), Ring(PRIME))
    }
    rings = [
        Reader(f"ring {ring.modulus}", seeds, lambda data, r=ring: r.unpack(data, DIMENSION))  # type: ignore[misc]
        for ring, seeds in vectors.items()
    ]
    shares = tuple(shamir.split(bytes(32), 4, range(1, 6), random(300)).values())
    lagrange = shamir.coefficients(range(1, 5))
    package = CKKSKey(np.arange(DEGREE, dtype=np.uint64), bytes(32)).to_bytes()
    return [
        *rings,
        Reader("marks", (b"\x1f", b"\x03"), lambda data: marked(names(COUNT), data)),
        Reader("marks of 1000", (b"\xff" * 125,), lambda data: marked([f"c{i}" for i in range(1000)], data)),
        Reader("share", shares, shamir.element),
        Reader("shares", (b"".join(shares[:4]),), lambda data: shamir.join(_quarters(data), lagrange)),
        Reader("key package", (package,), CKKSKey.from_bytes),
    ]


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
        return climb(given.part, given.index, given.parts, given.path)

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
        return receive(VICTIM, PURPOSE, roster(COUNT), one_use_key(VICTIM), read([data], Extract))

    def sealed(data: bytes) -> object:
        wanted = decode(data, MakeKeyRequest).joined
        return give("c0", identity("c0"), PURPOSE, roster(COUNT), wanted, b"about", bytes(64), random(400))

    return [
        Reader("delivered part", parts, received),
        Reader("join list", requests[MakeKeyRequest], sealed),
        Reader("delivery", (encode(given()),), lambda data: extracts_by_receiver(decode(data, Envelope))),
    ]


def _applications() -> list[Reader]:
    terms, requests = recorded("residues").terms, messages()
    word = KeyReceived(bytes(32), bytes(32)).encoded()
    own = announcement().encoded()
    apply = next(request for request in requests if request.__name__ == "ApplyRequest")
    return [
        Reader("sum", requests[apply], lambda data: verified_sum(terms, decode(data, apply))),  # type: ignore[arg-type]
        Reader("announcement", (own,), lambda data: Announcement.decoded(data).vector()),
        Reader("key received", (word,), KeyReceived.decoded),
    ]


# ---- sessions


def _clients() -> list[Reader]:
    return [
        Reader(
            f"client, {cell}, exchange {step:d}",
            tuple(recorded(cell).wire.requests[step, name] for name in (VICTIM, VICTIM, VICTIM, "c0", "c2")),
            lambda data, cell=cell, step=step: _handled(recorded(cell), step, data),  # type: ignore[misc]
        )
        for cell in CELLS
        for step in steps(recorded(cell).terms)
    ]


def _handled(round: Recorded, step: Step, data: bytes) -> bytes:
    """The reply of a client that has come to this exchange. After an error it must be spent."""
    client = copy.copy(round.wire.before[step, VICTIM])
    try:
        return client.handle(data)
    except ProtocolError:
        with pytest.raises(SessionSpent):
            client.handle(round.wire.requests[step, VICTIM])
        raise


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
            tuple(recorded(cell).wire.replies[step, name] for name in (VICTIM, VICTIM, VICTIM, "c0", "c2")),
            _Listening(recorded(cell), step),
        )
        for cell in CELLS
        for step in steps(recorded(cell).terms)
    ]
