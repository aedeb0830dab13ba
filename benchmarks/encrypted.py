"""The works of encrypted aggregation that a peer does too, each part timed: encrypt, add, decrypt. Here: done by us.

Both sides go through the same sequence with the same updates, and the mean that comes out is checked on both.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.round import CLIENTS, Measured, Play, Updates, play, update, updates
from protocols.encoding import Encoded, Upload
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.ntt import transform
from protocols.encoding.rlwe import CKKSParameters, a_masks, narrowest, shift
from protocols.masking import Work, apply_masks
from protocols.ring import RingVector, RunningSum
from securefl.keystream import fastest

# Updates are normal with deviation 0.1: nothing is cut off.
BOUND = 1.0
# Every client's. The multiplication is done all the same, on both sides.
WEIGHT = 1.0
_SESSION = bytes(32)

Mean = NDArray[np.float64]
Cipher = TypeVar("Cipher")


class Costs(Struct, frozen=True):
    """Seconds on one thread. Encrypting, packing and adding: for one upload, the median of all clients'.

    ``round``: the critical path, which is the slowest client, the server, and one client's decryption. ``upload``: one
    client's bytes. ``error``: the largest of any coordinate of the mean.
    """

    encrypt: float
    pack: float
    add: float
    unpack: float
    decrypt: float
    round: float
    upload: float
    error: float


class Side(Protocol[Cipher]):
    """One scheme in the middle of a round: the clients' key, and the server's sum so far."""

    tolerance: float

    def encrypt(self, update: NDArray[np.float32]) -> Cipher:
        """Weighted, too."""
        ...

    def pack(self, cipher: Cipher) -> Sequence[bytes]: ...

    def add(self, packed: Sequence[bytes]) -> None:
        """What the server does when an upload arrives."""
        ...

    def finish(self) -> Sequence[bytes]:
        """What the server does at the end, ready to be sent."""
        ...

    def unpack(self, packed: Sequence[bytes]) -> Cipher: ...

    def decrypt(self, cipher: Cipher) -> Mean: ...


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part].append(time.perf_counter() - started)

    def critical_path(self) -> float:
        uploads = [sum(both) for both in zip(self.seconds["encrypt"], self.seconds["pack"], strict=True)]
        server = sum(self.seconds["add"]) + sum(self.seconds["finish"])
        return max(uploads) + server + sum(self.seconds["unpack"]) + sum(self.seconds["decrypt"])


def nobody() -> None:
    """Whose turn it is where only one side runs."""


def costs(side: Side[Cipher], given: Updates, turn: Callable[[], None] = nobody) -> Costs:
    """One mean of all updates. An upload is dropped as soon as it is added: one at a time is in memory.

    ``turn`` is called before each client and before the end, and gives the other side its turn.
    """
    clock, upload = Clock(), 0
    for mine in given.values():
        turn()
        with clock("encrypt"):
            cipher = side.encrypt(mine)
        with clock("pack"):
            packed = side.pack(cipher)
        upload = sum(map(len, packed))
        with clock("add"):
            side.add(packed)
    turn()
    with clock("finish"):
        packed = side.finish()
    with clock("unpack"):
        cipher = side.unpack(packed)
    with clock("decrypt"):
        mean = side.decrypt(cipher)
    error = checked_error(mean, given, side.tolerance)
    medians = {part: median(seconds) for part, seconds in clock.seconds.items() if part != "finish"}
    return Costs(**medians, round=clock.critical_path(), upload=upload, error=error)


def checked_error(mean: Mean, given: Updates, tolerance: float) -> float:
    """The largest error of any coordinate. Raises if it is above ``tolerance``."""
    exact = sum(one.astype(np.float64) for one in given.values()) / len(given)
    error = float(np.abs(mean - exact).max())
    if not error <= tolerance:
        raise AssertionError(f"a mean is off by {error:g}: its times mean nothing")
    return error


def standard(dimension: int) -> CKKSParameters:
    """What a run takes by itself."""
    return narrowest(dimension, BOUND, CLIENTS)


def compact(dimension: int) -> CKKSParameters:
    """A third fewer bytes, and a coarser step."""
    return CKKSParameters(dimension, BOUND, CLIENTS, bits=32)


class Ours:
    """Our CKKS. ``decrypt`` rebuilds the sum of ``a`` from the seeds; reducing the sum is in ``finish``."""

    def __init__(self, parameters: CKKSParameters, work: Work | None = None) -> None:
        self.parameters = parameters
        self.key = CKKSKey.generate(os.urandom)
        self.encoding = CKKS(parameters, self.key, work or Work(fastest()))
        # Each value is rounded to one of its two neighbours on the grid.
        self.tolerance = parameters.step
        self._uploads: list[Upload] = []
        self._sum = RunningSum(parameters.ring, parameters.layout.length)

    def encrypt(self, update: NDArray[np.float32]) -> RingVector:
        name = f"client-{len(self._uploads)}"
        encoded: Encoded = self.encoding.encode(update, WEIGHT, _SESSION, name, os.urandom)
        self._uploads.append(Upload(_SESSION, name, encoded.seed))
        return encoded.vector

    def pack(self, cipher: RingVector) -> Sequence[bytes]:
        return [self.parameters.ring.pack(cipher)]

    def add(self, packed: Sequence[bytes]) -> None:
        self._sum.add(self.unpack(packed))

    def finish(self) -> Sequence[bytes]:
        return self.pack(self._sum.finish())

    def unpack(self, packed: Sequence[bytes]) -> RingVector:
        return self.parameters.ring.unpack(packed[0], self.parameters.layout.length)

    def decrypt(self, cipher: RingVector) -> Mean:
        return self.encoding.decode(cipher, self._uploads) / len(self._uploads)

    def noise(self) -> float:
        """The largest error of the mean that encryption alone would make, did it not round away."""
        p = self.parameters
        numbers, a = transform(p.degree, p.prime), p.ring.zeros(p.layout.length)
        apply_masks(a, p.ring, a_masks(p, self._uploads))
        secret = numbers.forward(self.key.coefficients.astype(np.int64))
        raw = numbers.inverse(shift(self._sum.finish(), a, secret, p.prime))
        wholes = np.floor_divide(raw + p.spacing // 2, p.spacing)
        return float(np.abs(raw - wholes * p.spacing).max()) / p.scale / len(self._uploads)


def ours(dimension: int, turn: Callable[[], None] = nobody) -> Costs:
    """Our parts, and the critical path and bytes of the whole protocol: masked, signed, every exchange counted."""
    given = updates(dimension)
    parts = costs(Ours(standard(dimension)), given, turn)
    measured, _ = masked_round(standard(dimension), given)
    return msgspec.structs.replace(parts, round=measured.seconds, upload=max(measured.up.values()))


def masked_round(parameters: CKKSParameters, given: Updates) -> tuple[Measured, float]:
    """One session to the decrypted sum, and the largest error of the mean."""
    work = Work(fastest())
    session = Play(CKKS(parameters, CKKSKey.generate(os.urandom), work), masked=True)
    measured = play(session, given, work)
    return measured, checked_error(measured.total / len(given), given, parameters.step)


@dataclass
class SharedOut:
    """Our encryption, its work shared out to processes that have been started."""

    pool: ProcessPoolExecutor = field(repr=False)

    def encrypt_seconds(self, dimension: int) -> float:
        """From a vector to its bytes, the median of some, and not the first: it has the processes make their tables."""
        side = Ours(standard(dimension), Work(fastest(), map=self.pool.map))
        mine, clock = update(0, dimension), Clock()
        for _ in range(4):
            with clock("encrypt"):
                side.pack(side.encrypt(mine))
        return median(clock.seconds["encrypt"][1:])


@contextmanager
def shared_out(processes: int = 2) -> Iterator[SharedOut]:
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield SharedOut(pool)
