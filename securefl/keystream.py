"""Which AES engine makes masks fastest on this machine: measured, since it depends on processor and library."""

from __future__ import annotations

import time

from protocols.masking import BLOCK_BYTES
from protocols.primitives import Engine, Keystream


def fastest() -> Engine:
    """The engine to use here. Takes about a millisecond; whatever it says, masks are the same to the bit."""
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
