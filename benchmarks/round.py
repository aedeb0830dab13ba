"""One round of each protection without training: milliseconds on the critical path, bytes up and down.

The critical path is what a deployment waits for: in every exchange the slowest client, then the server. Where only
clients can decrypt, two more exchanges: all are handed the sum and check it, then they decrypt it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.rows import Row, value_row
from protocols.aggregation.apply import (
    Applied,
    ApplyServer,
    apply_request,
    check_agreed,
    model_tag,
    sum_digest,
    verified_sum,
)
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import ApplyRequest, DecryptRequest, Header, envelope
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.base import ClientId, ClientSession, Messages, drive
from protocols.encoding import Encoding
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import narrowest
from protocols.graph import CohortRules
from protocols.masking import Work
from protocols.primitives import KEY_BYTES, Identity
from protocols.wire import decode, encode, kind
from securefl.keystream import local_work

TITLE = "One round, 10 clients, 1e6 parameters, training excluded"
CLIENTS, DIMENSION, BOUND = 10, 1_000_000, 4.0
# Bytes a parameter, all exchanges counted.
UPLOAD_GOALS = {"plain": None, "secagg": 4.05, "ckks-unmasked": None, "ckks": 7.1}

Updates = Mapping[ClientId, NDArray[np.float32]]


@dataclass
class Measured:
    """Seconds on the critical path, bytes of each client, and the sum."""

    seconds: float = 0.0
    up: Counter[ClientId] = field(default_factory=Counter)
    down: Counter[ClientId] = field(default_factory=Counter)
    total: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject: time and bytes of each protection."""
    cells = ("plain", "secagg", "ckks") if quick else ("plain", "secagg", "ckks-unmasked", "ckks")
    repetitions = 3 if quick else 9
    found: list[Row] = []
    for cell in cells:
        runs = [one_round(cell) for _ in track(range(repetitions), cell, transient=True)]
        name = cell.replace("-", "_")
        milliseconds = 1e3 * median(run.seconds for run in runs)
        found.append(value_row(f"{name}_round_milliseconds", milliseconds, "ms", quick))
        up, down = (max(counted.values()) / DIMENSION for counted in (runs[0].up, runs[0].down))
        found.append(value_row(f"{name}_upload_bytes_per_parameter", up, "B", quick, UPLOAD_GOALS[cell]))
        found.append(value_row(f"{name}_download_bytes_per_parameter", down, "B", quick))
    return found


def one_round(cell: str) -> Measured:
    """Run one session of ``cell`` and check its sum against the plain one."""
    given = updates(DIMENSION)
    measured = play(Play(_encoding(cell), cell in ("secagg", "ckks")), given, local_work())
    if np.abs(measured.total - sum(update.astype(np.float64) for update in given.values())).max() > 1e-4:
        raise AssertionError(f"{cell} gave a wrong sum: its times mean nothing")
    return measured


def updates(dimension: int) -> Updates:
    """What each client contributes: the same whenever and wherever it is asked for."""
    return {f"client-{place}": update(place, dimension) for place in range(CLIENTS)}


def update(place: int, dimension: int) -> NDArray[np.float32]:
    """That of one client: normal with deviation 0.1."""
    return np.float32(0.1) * np.random.default_rng(place).standard_normal(dimension, np.float32)


@dataclass
class Play:
    """One session to come: its parties, their identities, and what they agreed on."""

    encoding: Encoding
    masked: bool
    identities: dict[ClientId, Identity] = field(
        default_factory=lambda: {f"client-{i}": Identity.generate(os.urandom) for i in range(CLIENTS)}
    )

    @cached_property
    def terms(self) -> Terms:
        roster = Roster({name: identity.public for name, identity in self.identities.items()})
        context = Context("benchmark", 1, 1, b"", roster.digest, b"")
        return Terms(context, roster, CohortRules(), self.encoding.layout, self.masked)

    def client(self, name: ClientId, train: Callable[[], NDArray[np.float32]], work: Work) -> AggregationClient:
        identity, contribution = self.identities[name], Contribution(train)
        return AggregationClient(name, identity, self.terms, self.encoding, contribution, work=work)


@dataclass
class Decryption:
    """Of a session's sum, by the first client that asks. The others are told at once: only the slowest counts."""

    session: Play
    total: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)
    _tag: bytes = b""

    def tag(self, handed: ApplyRequest, asked: bytes, request: DecryptRequest) -> bytes:
        """Of the sum in place of a model, under a key that is no secret here."""
        if not self._tag:
            terms = self.session.terms
            needed = terms.rules.binding(len(handed.cohort), len(terms.roster.keys))
            check_agreed(terms, asked, request.agreed, needed)
            self.total = self.session.encoding.decode(*verified_sum(terms, handed))
            moved = self.total.astype("<f4").tobytes()
            self._tag = model_tag(bytes(KEY_BYTES), handed.run, handed.round, moved)
        return self._tag


class KeyHolder:
    """A client of a whole round: a session's, then exchange 5, without anything that is stored or trained."""

    def __init__(self, name: ClientId, client: AggregationClient, decryption: Decryption) -> None:
        self._name = name
        self._client = client
        self._decryption = decryption
        self._handed: ApplyRequest | None = None
        self._asked = b""

    def handle(self, request: bytes) -> bytes:
        match kind(request):
            case ApplyRequest.KIND:
                return self._agree(decode(request, ApplyRequest))
            case DecryptRequest.KIND:
                return self._decrypt(decode(request, DecryptRequest))
            case _:
                return self._client.handle(request)

    def _agree(self, request: ApplyRequest) -> bytes:
        self._asked = sum_digest(request)
        verified_sum(self._decryption.session.terms, request)
        self._handed = request
        return self._reply(Step.AGREE, self._asked)

    def _decrypt(self, request: DecryptRequest) -> bytes:
        if self._handed is None:
            raise AssertionError(f"{self._name} is to decrypt what it was not handed")
        tag = self._decryption.tag(self._handed, self._asked, request)
        self._handed = None
        return self._reply(Step.APPLY, msgspec.msgpack.encode(Applied(tag, 0.5)))

    def _reply(self, step: Step, word: bytes) -> bytes:
        session = self._decryption.session
        header = Header(session.terms.session, step, self._name, b"", b"", b"")
        return encode(envelope(session.identities[self._name], header, [word]))


def play(session: Play, given: Updates, work: Work, apart: Mapping[ClientId, ClientSession] | None = None) -> Measured:
    """Run one session. ``apart``: clients that are played elsewhere, in place of those made here."""
    decryption = Decryption(session)
    made = {
        name: KeyHolder(name, session.client(name, partial(given.__getitem__, name), work), decryption)
        for name in given
    }
    clients: Mapping[ClientId, ClientSession] = {**made, **(apart or {})}
    sealed = session.terms.layout.seed_bytes > 0
    # Under CKKS the clients have the model already.
    model = b"" if sealed else bytes(next(iter(given.values())).nbytes)
    measured = Measured()
    inside: list[float] = []
    exchange = partial(_exchange, clients, measured, inside)
    started = time.perf_counter()
    aggregate = drive(AggregationServer(session.terms, dict.fromkeys(clients, model), work), exchange)
    if sealed:
        commit = drive(ApplyServer(session.terms, apply_request(session.terms, aggregate.sum)), exchange)
        if commit.behind:
            raise AssertionError(f"{', '.join(commit.behind)} decrypted another sum: the round means nothing")
        measured.total = decryption.total
    else:
        measured.total = session.encoding.decode(aggregate.sum.total, aggregate.sum.uploads)
    measured.seconds += time.perf_counter() - started - sum(inside)
    return measured


def _exchange(
    clients: Mapping[ClientId, ClientSession], measured: Measured, inside: list[float], requests: Messages
) -> Iterator[tuple[ClientId, bytes]]:
    """One after the other, although in a deployment at the same time: only the slowest is on the critical path."""
    slowest = 0.0
    for name, request in requests.items():
        started = time.perf_counter()
        reply = clients[name].handle(request)
        inside.append(time.perf_counter() - started)
        slowest = max(slowest, inside[-1])
        measured.down[name] += len(request)
        measured.up[name] += len(reply)
        yield name, reply
    measured.seconds += slowest


def _encoding(cell: str) -> Encoding:
    if cell.startswith("ckks"):
        return CKKS(narrowest(DIMENSION, BOUND, CLIENTS), CKKSKey.generate(os.urandom), local_work())
    return FixedPoint(DIMENSION, BOUND, CLIENTS)
