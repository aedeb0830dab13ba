"""One client of a masked CKKS round in a process of its own, so that its memory is that of this one client."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from benchmarks.cohort import peak_bytes
from benchmarks.encrypted import standard
from benchmarks.round import Play, play, update, updates
from protocols.base import ClientId
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.masking import Work
from protocols.primitives import Identity
from securefl.keystream import fastest

_NAME, _PLACE = "client-0", 0
_SPAWN = multiprocessing.get_context("spawn")


class Part(Struct, frozen=True):
    """What the process is told of its session: enough to be the client."""

    dimension: int
    key: bytes
    identities: dict[ClientId, bytes]

    def session(self) -> Play:
        encoding = CKKS(standard(self.dimension), CKKSKey.from_bytes(self.key), Work(fastest()))
        return Play(encoding, True, {name: Identity(secret) for name, secret in self.identities.items()})


class ClientApart:
    """Answers as the client would. ``peaks``: the most memory that its process had held, after each exchange."""

    def __init__(self, part: Part) -> None:
        self.peaks: list[int] = []
        self._pipe, there = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(there, msgpack.encode(part)), daemon=True)
        self._process.start()
        there.close()

    def __enter__(self) -> ClientApart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join()

    def handle(self, request: bytes) -> bytes:
        self._pipe.send_bytes(request)
        self.peaks.append(int.from_bytes(self._pipe.recv_bytes()))
        return self._pipe.recv_bytes()

    def apply(self, request: bytes) -> NDArray[np.float64]:
        """The sum as the client decrypted it."""
        return np.frombuffer(self.handle(request))


def serve(pipe: Connection, part: bytes) -> None:
    """The process: five answers, and for the last request the decrypted sum."""
    told = msgpack.decode(part, type=Part)
    session = told.session()
    # As in training, the update is made when it is asked for and kept by nobody but who encodes it.
    client = session.client(_NAME, partial(update, _PLACE, told.dimension), Work(fastest()))
    for _ in range(5):
        _answer(pipe, client.handle(pipe.recv_bytes()))
    _answer(pipe, memoryview(session.apply(pipe.recv_bytes())).cast("B"))


def client_peaks(dimension: int) -> list[int]:
    """Bytes at most, after each exchange, of one client in a round of all; its sum must be that of the others."""
    key = CKKSKey.generate(os.urandom)
    session = Play(CKKS(standard(dimension), key, Work(fastest())), masked=True)
    identities = {name: identity.secret for name, identity in session.identities.items()}
    with ClientApart(Part(dimension, key.to_bytes(), identities)) as client:
        measured = play(session, updates(dimension), Work(fastest()), {_NAME: client})
        if not np.array_equal(client.apply(measured.request), measured.total):
            raise AssertionError("a client decrypts another sum: its memory means nothing")
        return client.peaks


def _answer(pipe: Connection, reply: bytes | memoryview) -> None:
    """The peak first: sending is on nobody's account."""
    pipe.send_bytes(peak_bytes().to_bytes(8))
    pipe.send_bytes(reply)
