"""One round of each protection without training: milliseconds on the critical path, bytes up and down.

The critical path is what a deployment waits for: in every exchange the slowest client, then the server; at the end
decryption at a client, where only clients can decrypt.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.rows import Row, value_row
from protocols.aggregation.apply import Applied, apply_request, verified_sum
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Header, envelope
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.base import Messages, drive
from protocols.encoding import Encoding
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.graph import CohortRules
from protocols.primitives import Identity
from protocols.wire import encode
from securefl.keystream import local_work

TITLE = "One round, 10 clients, 1e6 parameters, training excluded"
CLIENTS, DIMENSION, BOUND = 10, 1_000_000, 4.0
# Bytes a parameter, all exchanges counted.
UPLOAD_GOALS = {"plain": None, "secagg": 4.05, "ckks-unmasked": None, "ckks": 7.2}


@dataclass
class Measured:
    """Seconds on the critical path, and bytes of the client with most of them."""

    seconds: float = 0.0
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)


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
    generator = np.random.default_rng(0)
    updates = {f"client-{i}": generator.normal(0, 0.1, DIMENSION).astype(np.float32) for i in range(CLIENTS)}
    identities = {name: Identity.generate(os.urandom) for name in updates}
    roster = Roster({name: identity.public for name, identity in identities.items()})
    encoding = _encoding(cell)
    context = Context("benchmark", 1, 1, b"", roster.digest, b"")
    terms = Terms(context, roster, CohortRules(), encoding.layout, cell in ("secagg", "ckks"))
    work = local_work()
    clients = {
        name: AggregationClient(name, identity, terms, encoding, Contribution(_constant(updates[name])), work=work)
        for name, identity in identities.items()
    }
    measured = Measured()
    total = _timed_round(terms, encoding, clients, measured)
    if np.abs(total - sum(update.astype(np.float64) for update in updates.values())).max() > 1e-4:
        raise AssertionError(f"{cell} gave a wrong sum: its times mean nothing")
    return measured


def _timed_round(
    terms: Terms, encoding: Encoding, clients: dict[str, AggregationClient], measured: Measured
) -> NDArray[np.float64]:
    inside: list[float] = []

    def exchange(requests: Messages) -> Iterator[tuple[str, bytes]]:
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

    started = time.perf_counter()
    sealed = terms.layout.seed_bytes > 0
    announcement = b"" if sealed else bytes(4 * DIMENSION)  # under CKKS the clients have the model already
    aggregate = drive(AggregationServer(terms, dict.fromkeys(clients, announcement), local_work()), exchange)
    if sealed:
        request = apply_request(terms, aggregate.sum)
        measured.down.update(dict.fromkeys(clients, len(encode(request))))
        total = encoding.decode(*verified_sum(terms, request))
        measured.up.update(dict.fromkeys(clients, _apply_reply_bytes(terms)))
    else:
        total = encoding.decode(aggregate.sum.total, aggregate.sum.uploads)
    measured.seconds += time.perf_counter() - started - sum(inside)
    return total


def _apply_reply_bytes(terms: Terms) -> int:
    header = Header(terms.session, Step.APPLY, "client-0", b"", b"", ())
    body = msgspec.msgpack.encode(Applied(bytes(32), 0.5))
    return len(encode(envelope(Identity.generate(os.urandom), header, [body])))


def _constant(update: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    return lambda: update


def _encoding(cell: str) -> Encoding:
    if cell.startswith("ckks"):
        return CKKS(CKKSParameters(DIMENSION, BOUND, CLIENTS), CKKSKey.generate(os.urandom))
    return FixedPoint(DIMENSION, BOUND, CLIENTS)
