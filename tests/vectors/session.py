"""One whole session of four clients with every random byte pinned: what the session vectors are made of.

Not a test. One of the four sends nothing from exchange 2 on, so that the sum needs its mask key rebuilt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import (
    Envelope,
    Header,
    InputRequest,
    SharesRequest,
    envelope,
    key_list_digest,
    membership_digest,
)
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.sharing import Keys
from protocols.aggregation.stage import Stage, Sum
from protocols.aggregation.states import Contribution
from protocols.base import ClientId
from protocols.encoding.fixedpoint import FixedPoint
from protocols.graph import CohortRules
from protocols.masking import Work
from protocols.primitives import Identity
from protocols.wire import decode

Json = dict[str, object]

# One name is not ASCII: names are ordered by their UTF-8 bytes.
NAMES = ("ash", "birch", "cedar", "éclat")
DROPPED = "cedar"
ANNOUNCEMENT = b"announcement"
ENCODING = FixedPoint(6, 4.0, 4, 24)
UPDATES: Mapping[ClientId, list[float]] = {
    "ash": [0.5, -1.25, 4.0, -4.0, 0.001, 0.1],
    "birch": [2.0, 0.0, 5.5, -9.0, -0.001, 0.2],
    "cedar": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "éclat": [-0.75, 3.0, 4.0, -4.0, 0.0, 0.3],
}
WEIGHTS = {"ash": 1.0, "birch": 0.5, "cedar": 1.0, "éclat": 0.25}


class Pinned:
    """A source of random bytes that are the same in every run, and a list of what was drawn from it."""

    def __init__(self, seed: str) -> None:
        self._stream = hashlib.shake_256(f"pinned randomness of {seed}".encode()).digest(1 << 14)
        self._used = 0
        self.draws: list[bytes] = []

    def __call__(self, count: int) -> bytes:
        self._used += count
        assert self._used <= len(self._stream)
        self.draws.append(self._stream[self._used - count : self._used])
        return self.draws[-1]


def identity(name: ClientId) -> Identity:
    return Identity(hashlib.sha256(f"identity of {name}".encode()).digest())


def roster() -> Roster:
    return Roster({name: identity(name).public for name in NAMES})


def terms(attempt: int = 1) -> Terms:
    context = Context("run", 7, attempt, b"configuration", roster().digest, b"model")
    return Terms(context, roster(), CohortRules(), ENCODING.layout, True)


def client(name: ClientId, random: Pinned, attempt: int = 1) -> AggregationClient:
    mine = Contribution(lambda: np.array(UPDATES[name]), WEIGHTS[name], f"witness of {name}".encode())
    return AggregationClient(name, identity(name), terms(attempt), ENCODING, mine, random)


def signed(
    name: ClientId, step: Step, keys: bytes, *parts: bytes, signer: ClientId | None = None, **changes: object
) -> Envelope:
    """An envelope that ``signer`` (else ``name``) signs in ``name``'s name; ``changes`` are of the header."""
    header = msgspec.structs.replace(Header(terms().session, step, name, keys, b"", b""), **changes)
    return envelope(identity(signer or name), header, parts)


@dataclass
class Transcript:
    """All requests and replies by exchange and client, what each client drew, and the server at its end."""

    server: AggregationServer
    random: Mapping[ClientId, Pinned]
    requests: list[dict[ClientId, bytes]] = field(default_factory=list)
    replies: list[dict[ClientId, bytes]] = field(default_factory=list)

    def reply(self, step: Step, name: ClientId) -> Envelope:
        return decode(self.replies[step][name], Envelope)

    @property
    def keys(self) -> bytes:
        """The digest of the key list."""
        shown = decode(self.requests[Step.SHARES]["ash"], SharesRequest)
        return key_list_digest(shown.members, shown.entries)

    @property
    def members(self) -> bytes:
        """The digest of the key list and of who dealt shares, which headers name from exchange 2 on."""
        return membership_digest(self.keys, decode(self.requests[Step.INPUT]["ash"], InputRequest).shared)


def stages(replies: Sequence[Mapping[ClientId, bytes]]) -> Iterator[Stage]:
    """The server's stage before each of these exchanges' replies, and the one that follows on them, if any."""
    stage: Stage | Sum = Keys(terms(), frozenset(NAMES), Work())
    for given in replies:
        assert not isinstance(stage, Sum)
        yield stage
        for name, data in given.items():
            stage.fold(name, decode(data, Envelope))
        following = stage.finish()
        stage = following if isinstance(following, Sum) else following[0]
    if not isinstance(stage, Sum):
        yield stage


def record(attempt: int = 1) -> Transcript:
    """Run the session."""
    random = {name: Pinned(f"{name}, attempt {attempt}") for name in NAMES}
    clients = {name: client(name, random[name], attempt) for name in NAMES}
    made = Transcript(AggregationServer(terms(attempt), dict.fromkeys(NAMES, ANNOUNCEMENT)), random)
    requests = made.server.open()
    while requests:
        made.requests.append(dict(requests))
        heard = [name for name in requests if name != DROPPED or len(made.requests) <= Step.INPUT]
        made.replies.append({name: clients[name].handle(requests[name]) for name in heard})
        requests = made.server.advance(made.replies[-1].items())
    return made
