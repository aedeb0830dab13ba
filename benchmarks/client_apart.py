"""One client of a masked CKKS round in a process of its own, so that its memory is that of this one client."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType

from msgspec import Struct, msgpack

from benchmarks.cohort import peak_bytes
from benchmarks.encrypted import standard
from benchmarks.round import Decryption, KeyHolder, Play, play, update, updates
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


def serve(pipe: Connection, part: bytes) -> None:
    """The process: five answers of a session, then what this client says of the sum that it is handed, and decrypts."""
    told = msgpack.decode(part, type=Part)
    session = told.session()
    # As in training, the update is made when it is asked for and kept by nobody but who encodes it.
    contributing = session.client(_NAME, partial(update, _PLACE, told.dimension), Work(fastest()))
    client = KeyHolder(_NAME, contributing, Decryption(session))
    for _ in range(7):
        _answer(pipe, client.handle(pipe.recv_bytes()))


def client_peaks(dimension: int) -> list[int]:
    """Bytes at most, after each exchange, of one client in a round of all; raises if it decrypts another sum."""
    key = CKKSKey.generate(os.urandom)
    session = Play(CKKS(standard(dimension), key, Work(fastest())), masked=True)
    identities = {name: identity.secret for name, identity in session.identities.items()}
    with ClientApart(Part(dimension, key.to_bytes(), identities)) as client:
        play(session, updates(dimension), Work(fastest()), {_NAME: client})
        return client.peaks


def _answer(pipe: Connection, reply: bytes) -> None:
    """The peak first: sending is on nobody's account."""
    pipe.send_bytes(peak_bytes().to_bytes(8))
    pipe.send_bytes(reply)
