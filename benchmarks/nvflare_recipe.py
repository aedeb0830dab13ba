"""NVFLARE's encrypted aggregation, replayed with stock ``tenseal`` calls: a context, one vector a tensor, a mean.

After nvflare/app_opt/he: ``model_encryptor`` weighs in the clear, encrypts and serializes,
``intime_accumulate_model_aggregator`` loads, adds and divides by the total weight in ciphertext, ``model_decryptor``
decrypts. Not replayed: its messages, signatures and transport, which would only add to its times and bytes. Contexts
are handed out before a run and not once a round; a serialized vector holds none.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np
import tenseal as ts
from msgspec import msgpack
from numpy.typing import NDArray

from benchmarks.encrypted import WEIGHT, Costs, Mean, costs, nobody
from benchmarks.round import updates

PEER = f"tenseal {version('tenseal')}"
# The CNN of McMahan et al. (AISTATS 2017): weights and biases of two convolutions and two dense layers.
CNN = (800, 32, 51_200, 64, 1_605_632, 512, 5120, 10)
# Its decrypted values are off by some 1e-7 at this scale.
_TOLERANCE = 1e-5
_SPAWN = multiprocessing.get_context("spawn")
_READY, _GO = b"ready", b"go"

Cipher = list[ts.CKKSVector]


def tensor_sizes(dimension: int) -> list[int]:
    """The CNN's tensors in proportion, with ``dimension`` values in all. At 1e6, 245 ciphertexts' worth in 251."""
    sizes = [max(1, round(size * dimension / sum(CNN))) for size in CNN]
    sizes[CNN.index(max(CNN))] += dimension - sum(sizes)
    return sizes


class Recipe:
    """Its clients with the key, its server without."""

    tolerance = _TOLERANCE

    def __init__(self, dimension: int) -> None:
        self._clients = _context()
        public = self._clients.serialize(
            save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=True
        )
        self._server = ts.context_from(public)
        self._cuts = np.cumsum(tensor_sizes(dimension))[:-1]
        self._total: Cipher = []
        self._weight = 0.0

    def encrypt(self, update: NDArray[np.float32]) -> Cipher:
        tensors = np.split(update, self._cuts)
        return [ts.ckks_vector(self._clients, tensor * np.float64(WEIGHT)) for tensor in tensors]

    def pack(self, cipher: Cipher) -> Sequence[bytes]:
        return [vector.serialize() for vector in cipher]

    def add(self, packed: Sequence[bytes]) -> None:
        vectors = [ts.ckks_vector_from(self._server, data) for data in packed]
        self._total = [a + b for a, b in zip(self._total, vectors, strict=True)] if self._total else vectors
        self._weight += WEIGHT

    def finish(self) -> Sequence[bytes]:
        return self.pack([vector * (1.0 / self._weight) for vector in self._total])

    def unpack(self, packed: Sequence[bytes]) -> Cipher:
        return [ts.ckks_vector_from(self._clients, data) for data in packed]

    def decrypt(self, cipher: Cipher) -> Mean:
        return np.concatenate([np.array(vector.decrypt()) for vector in cipher])


def theirs(dimension: int, turn: Callable[[], None] = nobody) -> Costs:
    """One replay on the same updates that we are given."""
    return costs(Recipe(dimension), updates(dimension), turn)


class Apart:
    """``theirs`` in a process of its own, because TenSEAL prints warnings past Python where a progress bar is.

    It works only while ``turn`` is waiting for it, so that neither side is timed while the other runs.
    """

    def __init__(self) -> None:
        self._pipe, there = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        self._said = b""

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join()

    def begin(self, dimension: int) -> None:
        """Make contexts and updates, and stop before the first client."""
        self._ask(msgpack.encode(dimension))

    def turn(self) -> None:
        """Let it go on to the next client, or to the end."""
        self._ask(_GO)

    @property
    def costs(self) -> Costs:
        """After the last turn."""
        return msgpack.decode(self._said, type=Costs)

    def _ask(self, request: bytes) -> None:
        self._pipe.send_bytes(request)
        try:
            self._said = self._pipe.recv_bytes()
        except EOFError as error:
            raise AssertionError("the peer's process ended, and why is above: its times mean nothing") from error


def serve(pipe: Connection) -> None:
    """The process: one replay for each dimension that it is told."""
    _silence()

    def turn() -> None:
        pipe.send_bytes(_READY)
        pipe.recv_bytes()

    while True:
        try:
            pipe.send_bytes(msgpack.encode(theirs(msgpack.decode(pipe.recv_bytes(), type=int), turn)))
        except EOFError:
            return


def _silence() -> None:
    """Of standard output only: what goes wrong is still shown."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.close(silent)


def _context() -> ts.Context:
    context = ts.context(
        ts.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = 2**40
    return context
