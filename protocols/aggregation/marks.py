"""Sets of clients on the wire: one bit for each member of the key list, in order. No set can be written twice, out of
order or with strangers in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import compress

import numpy as np

from protocols.base import ClientId
from protocols.errors import MalformedMessage


def mark(members: Sequence[ClientId], chosen: Collection[ClientId]) -> bytes:
    """One bit a member, lowest first; set for those who are ``chosen``."""
    wanted = frozenset(chosen)
    return np.packbits(np.array([name in wanted for name in members], np.bool_), bitorder="little").tobytes()


def marked(members: Sequence[ClientId], marks: bytes) -> tuple[ClientId, ...]:
    """The members whose bit is set. Raises ``MalformedMessage`` for too many or too few bits."""
    bits = np.unpackbits(np.frombuffer(marks, np.uint8), bitorder="little")
    if len(marks) != (len(members) + 7) // 8 or bits[len(members) :].any():
        raise MalformedMessage(f"{len(marks)} bytes do not mark a set among {len(members)} clients")
    return tuple(compress(members, bits))
