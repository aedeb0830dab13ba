"""Real messages of every kind: where fuzzing starts from. Not a test.

All keys come from a seeded generator, so that one seed gives the same bytes on every machine. CKKS itself draws from
SEAL; where its ring and its seeds matter, they come with vectors that nobody encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.apply import Applied, apply_request, sum_digest
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import (
    Advertised,
    ApplyRequest,
    Complaint,
    Dealt,
    DecryptRequest,
    Envelope,
    Header,
    KeysRequest,
    Opened,
    Refusal,
    SharePair,
    envelope,
)
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Context, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.base import ClientId, Random, drive
from protocols.delivery.client import extracts_by_receiver, give, join, seal_model
from protocols.delivery.messages import (
    Checkpoint,
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    Package,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
    catch_up,
    key_setup,
)
from protocols.encoding import Encoded, Encoding, Floats, Integers, Layout, Upload
from protocols.encoding.ckks import CKKSKey
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import DEGREE, PRIME
from protocols.graph import CohortRules
from protocols.masking import expand
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


def random(seed: int) -> Random:
    return np.random.default_rng(seed).bytes


# ---- whole rounds


@dataclass(frozen=True)
class Residues:
    """Uniform residues modulo the prime of CKKS and a public seed, as an encryption looks to all but key holders."""

    layout: Layout = field(default_factory=lambda: Layout(Ring(PRIME), DIMENSION, COUNT, 32, digest("residues")))

    def encode(
        self,
        update: Floats,
        weight: float,
        session: bytes,
        sender: ClientId,
        random: Random,
        noise: Integers | None = None,
    ) -> Encoded:
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
def recorded(cell: str, attempt: int = 1) -> Recorded:
    """A whole round of five."""
    coder: Encoding = Residues() if cell == "residues" else FixedPoint(DIMENSION, 4.0, COUNT)
    context = Context("run", 1, attempt, b"plan", roster(COUNT).digest, b"model")
    terms = Terms(context, roster(COUNT), CohortRules(), coder.layout, cell != "plain")
    clients = {
        name: AggregationClient(
            name, identity(name), terms, coder, Contribution(lambda: np.ones(DIMENSION)), random(10 * attempt + seed)
        )
        for seed, name in enumerate(names(COUNT))
    }
    wire = Wire(clients)
    aggregate = drive(AggregationServer(terms, dict.fromkeys(clients, b"announcement")), wire)
    return Recorded(terms, wire, aggregate)


# ---- deliveries

KEY_SESSION = key_setup("run", b"plan", roster(COUNT), 3)
MODEL_SESSION = catch_up("run", b"plan", roster(COUNT), 3)
KEY_ID, TAG_KEY, TAG, MODEL = (digest(label) for label in ("key id", "tag key", "tag", "model"))


@cache
def key_package() -> bytes:
    """A ternary secret, two bits a coefficient, and a tag key, as ``CKKSKey.to_bytes`` has it."""
    coefficients = np.random.default_rng(500).integers(-1, 2, DEGREE).astype(np.int8)
    return CKKSKey(coefficients, TAG_KEY).to_bytes()


@cache
def one_use_key(name: ClientId) -> AgreementKey:
    return AgreementKey.generate(random(100 + int(name[1:])))


@cache
def joined() -> tuple[Envelope, ...]:
    return tuple(join(name, identity(name), KEY_SESSION, one_use_key(name)) for name in names(COUNT))


@cache
def given(giver: ClientId = "c0") -> Envelope:
    about, package = KEY_ID, key_package()
    return give(giver, identity(giver), KEY_SESSION, roster(COUNT), joined(), about, package, random(200))


@cache
def checkpoint(giver: ClientId = "c0") -> Envelope:
    return seal_model(giver, identity(giver), MODEL_SESSION, TAG_KEY, TAG, MODEL, random(201))


def received() -> tuple[Envelope, ...]:
    return _said_by_all(KEY_SESSION, Step.RECEIVE_KEY, KeyReceived(KEY_ID, 3, TAG).encoded())


def installed() -> tuple[Envelope, ...]:
    return _said_by_all(MODEL_SESSION, Step.INSTALL_MODEL, TAG)


def evidence() -> tuple[Envelope, ...]:
    body = msgspec.msgpack.encode(Applied(TAG, 0.9, True))
    return _said_by_all(recorded("residues").terms.session, Step.APPLY, body)


def handed() -> ApplyRequest:
    return apply_request(recorded("residues").terms, recorded("residues").aggregate.sum)


def agreed() -> DecryptRequest:
    """What the server sends once all say that they were handed the same sum."""
    said = _said_by_all(recorded("residues").terms.session, Step.AGREE, sum_digest(handed()))
    return DecryptRequest("run", 3, tuple(each.signed for each in said))


def _said_by_all(session: bytes, step: Step, body: bytes) -> tuple[Envelope, ...]:
    return tuple(envelope(identity(name), Header(session, step, name, b"", b"", b""), [body]) for name in names(COUNT))


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
        # Tests define messages of their own, with the kinds of real ones.
        real = (message for message in Message.__subclasses__() if message.__module__.startswith("protocols."))
        every = {message.KIND: message for message in real}
        for data in (*wire.requests.values(), *wire.replies.values()):
            add(decode(data, every[kind(data)]))
    part = extracts_by_receiver(given())[VICTIM]
    add(handed(), agreed(), Refusal("spent"))
    add(JoinRequest(announcement().encoded()), KeysRequest(announcement().encoded()))
    add(MakeKeyRequest("run", 3, joined()), ShareKeyRequest("run", 3, KEY_ID, joined()))
    add(ReceiveKeyRequest("run", 3, part), SealModelRequest("run", 3, KEY_ID))
    add(InstallModelRequest("run", 3, checkpoint(), (*evidence(), *received())))
    add(given(), checkpoint(), *joined(), *received(), *installed(), *evidence())
    return {message: tuple(several) for message, several in found.items()}


def announcement() -> Announcement:
    plan = Plan(
        job="job",
        protection="secagg",
        clients=names(COUNT),
        weights=(1.0,) * COUNT,
        bound=4.0,
        minimum=3,
        threshold=None,
        rounds=1,
        mechanism=SGD(sampling_rate=0.5, steps=2),
        optimizer=LocalOptimizer(0.5),
        architecture="0b" * 32,
        dimension=DIMENSION,
        model_seed=1,
    )
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
        Applied: (*evidence()[0].parts, msgspec.msgpack.encode(Applied(TAG, None))),
        Package: given().parts,
        Checkpoint: checkpoint().parts,
        KeyReceived: received()[0].parts,
    }
