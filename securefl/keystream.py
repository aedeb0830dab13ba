"""How this machine does the heavy work of masking: which AES engine is fastest, and threads for hashing."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from protocols.masking import BLOCK_BYTES, Work
from protocols.primitives import Engine, Keystream


@cache
def local_work() -> Work:
    """The fastest engine and as many hashing threads as there are cores. Whatever they are, results are the same.

    Measured once a process. Threads start when the first long message is hashed.
    """
    return Work(fastest(), threads=ThreadPoolExecutor(os.cpu_count() or 1, "securefl-hash").map)


@cache
def fastest() -> Engine:
    """The engine to use here, found out once in about a millisecond; whatever it is, masks are the same to the bit."""
    return max(Engine, key=lambda engine: gigabytes_per_second(engine, mebibytes=2))


def gigabytes_per_second(engine: Engine, mebibytes: int = 64) -> float:
    """Speed of a raw keystream on one core, in the blocks that masking uses; the best of three."""
    zeros, buffer = memoryview(bytes(BLOCK_BYTES)), memoryview(bytearray(BLOCK_BYTES))
    stream = Keystream(bytes(16), bytes(15) + b"\2", engine)
    stream.read_into(zeros, buffer)  # warms up caches and the engine
    blocks = max(1, (mebibytes << 20) // BLOCK_BYTES // 3)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(blocks):
            stream.read_into(zeros, buffer)
        seconds.append(time.perf_counter() - start)
    return blocks * BLOCK_BYTES / min(seconds) / 1e9
