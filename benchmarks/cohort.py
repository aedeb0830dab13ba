"""A whole cohort at its real size: the server in this process, clients in others, joined by pipes.

Replies come one at a time, so that the server never holds more of them than it keeps. Clients are real; their
identities follow from their names, so that no secret has to be passed between the processes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Contribution
from protocols.base import ClientId, Messages, drive
from protocols.encoding.fixedpoint import FixedPoint
from protocols.graph import CohortRules
from protocols.masking import Work
from protocols.primitives import Identity
from securefl.keystream import fastest, local_work

BOUND = 4.0
_SPAWN = multiprocessing.get_context("spawn")


class Session(msgspec.Struct, frozen=True):
    """One round to run. The ``dropped`` first clients deal shares and then fall silent."""

    clients: int
    dimension: int
    dropped: int = 0
    bits: int = 32

    @property
    def names(self) -> list[ClientId]:
        return [f"client-{i:05d}" for i in range(self.clients)]

    @property
    def encoding(self) -> FixedPoint:
        return FixedPoint(self.dimension, BOUND, self.clients, self.bits)

    @property
    def terms(self) -> Terms:
        roster = Roster({name: _identity(name).public for name in self.names})
        context = Context("benchmark", 1, 1, b"", roster.digest, b"")
        return Terms(context, roster, CohortRules(), self.encoding.layout, masked=True)

    def update(self) -> NDArray[np.float32]:
        """What every client contributes, each with a weight of its own."""
        return np.random.default_rng(0).uniform(-BOUND, BOUND, self.dimension).astype(np.float32)

    def weight(self, name: ClientId) -> float:
        """At least a half: a client that is missing from the sum, or in it twice, shows."""
        return 0.5 + 0.5 * int(name.removeprefix("client-")) / self.clients

    def members(self, names: Iterable[ClientId]) -> dict[ClientId, AggregationClient]:
        """Real clients, with one update in memory for all of them."""
        # One thread for each: there are as many processes of clients as cores.
        terms, encoding, update, work = self.terms, self.encoding, self.update(), Work(fastest())
        return {
            name: AggregationClient(
                name,
                _identity(name),
                terms,
                encoding,
                Contribution(lambda: update, self.weight(name)),
                work=work,
            )
            for name in names
        }

    def server(self, work: Work) -> AggregationServer:
        """A real server, whose announcement is empty."""
        return AggregationServer(self.terms, dict.fromkeys(self.names, b""), work)

    def asked(self, step: int, requests: Messages) -> list[ClientId]:
        """Who answers in this exchange."""
        silent = set(self.names[: self.dropped]) if step >= Step.INPUT else set()
        return [name for name in requests if name not in silent]

    def check(self, aggregate: Aggregate) -> None:
        """Raise unless the sum is right and over exactly the clients that did not fall silent."""
        if list(aggregate.contributors) != self.names[self.dropped :]:
            raise AssertionError(f"{len(aggregate.contributors)} of {self.clients} contributed: not who should have")
        weight = sum(map(self.weight, aggregate.contributors))
        total = self.encoding.decode(aggregate.sum.total, aggregate.sum.uploads)
        if np.abs(total - weight * self.update().astype(np.float64)).max() > self.clients * self.encoding.step:
            raise AssertionError("the sum is wrong: its cost means nothing")


@dataclass
class Cost:
    """Of each exchange, summed over clients: CPU seconds inside them, bytes from and to them; and of the round.

    ``upload``: bytes from each client. ``server_bytes``: the most memory that the server's process held.
    """

    cpu: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    up: Counter[int] = field(default_factory=Counter)
    down: Counter[int] = field(default_factory=Counter)
    upload: Counter[ClientId] = field(default_factory=Counter)
    seconds: float = 0.0
    server_bytes: int = 0


def run(session: Session, processes: int = os.cpu_count() or 1) -> Cost:
    """One round, its sum checked. ``server_bytes``: the most memory that this process ever held, decoding included."""
    with Processes(session, processes) as exchange:
        started = time.perf_counter()
        aggregate = drive(session.server(local_work()), exchange)
        exchange.cost.seconds = time.perf_counter() - started
    session.encoding.decode(aggregate.sum.total, aggregate.sum.uploads)
    exchange.cost.server_bytes = peak_bytes()
    session.check(aggregate)
    return exchange.cost


def run_apart(session: Session) -> Cost:
    """The same with the server in a fresh process, so that its memory is that of this round alone."""
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(run, session).result()


def peak_bytes() -> int:
    """The largest resident set of this process since it was started.

    Not ``ru_maxrss``: Linux hands that one down to a new program, so that it would be the parent's if that was larger.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class Answer(msgspec.Struct, frozen=True):
    """Goes before a reply: whose it is and the CPU seconds it took."""

    name: ClientId
    cpu: float


Waiting = dict[Connection, deque[list[ClientId]]]


class Processes:
    """The transport: an exchange over pipes. ``cost`` grows with what goes through it."""

    def __init__(self, session: Session, processes: int) -> None:
        self.cost = Cost()
        self._session = session
        self._step = -1
        self._pipes: list[Connection] = []
        self._workers = []
        self._place = {name: i % processes for i, name in enumerate(session.names)}
        for worker in range(processes):
            here, there = _SPAWN.Pipe()
            names = session.names[worker::processes]
            self._workers.append(_SPAWN.Process(target=serve, args=(there, session, names), daemon=True))
            self._workers[-1].start()
            there.close()
            self._pipes.append(here)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pipe in self._pipes:
            pipe.close()
        for worker in self._workers:
            worker.join()

    def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        self._step += 1
        names = self._session.asked(self._step, requests)
        replies, shown = self._replies(requests, names), sys.stdout.isatty()
        yield from track(replies, f"exchange {self._step}", len(names), transient=True, disable=not shown)

    def _replies(self, requests: Messages, names: Sequence[ClientId]) -> Iterator[tuple[ClientId, bytes]]:
        """One batch at a time with each process: neither end writes while the other does, so that no pipe jams."""
        waiting = self._batches(requests, names)
        left = {pipe: self._send(pipe, waiting, requests) for pipe in waiting}
        while left:
            for ready in wait(list(left)):
                assert isinstance(ready, Connection)  # noqa: S101
                answer = msgspec.msgpack.decode(ready.recv_bytes(), type=Answer)
                reply = ready.recv_bytes()
                self._count(answer, reply)
                left[ready] -= 1
                if left[ready] == 0:
                    left[ready] = self._send(ready, waiting, requests)
                if left[ready] == 0:
                    del left[ready]
                yield answer.name, reply

    def _batches(self, requests: Messages, names: Sequence[ClientId]) -> Waiting:
        """By process, clients in a row that are sent the very same bytes."""
        batches: Waiting = {}
        for name in names:
            mine = batches.setdefault(self._pipes[self._place[name]], deque())
            # Anything but a dictionary makes its requests when it is asked: one for each client.
            if mine and isinstance(requests, dict) and requests[mine[-1][0]] is requests[name]:
                mine[-1].append(name)
            else:
                mine.append([name])
        return batches

    def _send(self, pipe: Connection, waiting: Waiting, requests: Messages) -> int:
        """Send the next batch; returns for how many replies to wait."""
        if not waiting[pipe]:
            return 0
        batch = waiting[pipe].popleft()
        request = requests[batch[0]]
        pipe.send_bytes(msgspec.msgpack.encode(batch))
        pipe.send_bytes(request)
        self.cost.down[self._step] += len(request) * len(batch)
        return len(batch)

    def _count(self, answer: Answer, reply: bytes) -> None:
        self.cost.cpu[self._step] += answer.cpu
        self.cost.up[self._step] += len(reply)
        self.cost.upload[answer.name] += len(reply)


def serve(pipe: Connection, session: Session, names: list[ClientId]) -> None:
    """A process of clients: answer until the pipe is closed."""
    clients = session.members(names)
    while True:
        try:
            batch = msgspec.msgpack.decode(pipe.recv_bytes(), type=list[ClientId])
            request = pipe.recv_bytes()
        except EOFError:
            return
        for name in batch:
            started = time.process_time()
            reply = clients[name].handle(request)
            pipe.send_bytes(msgspec.msgpack.encode(Answer(name, time.process_time() - started)))
            pipe.send_bytes(reply)


def _identity(name: ClientId) -> Identity:
    return Identity(hashlib.sha256(f"identity of {name}".encode()).digest())
