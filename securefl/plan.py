"""The public configuration of a run: what every client checks, and what the session id binds.

A plan holds declared constants only; nothing in it is computed from the clients' records.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from securefl.errors import BadInput
from securefl.privacy.mechanism import Mechanism, Positive

Protection = Literal["plain", "secagg", "ckks-unmasked", "ckks"]


def _as_floats(value: Struct, *names: str) -> None:
    """Whole numbers become floats where a float is meant, so that equal values have equal encodings and digests."""
    for name in names:
        msgspec.structs.force_setattr(value, name, float(getattr(value, name)))


class LocalOptimizer(Struct, frozen=True, forbid_unknown_fields=True):
    """How a client descends. Changes accuracy, never a guarantee."""

    learning_rate: Positive
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.learning_rate < math.inf and 0 <= self.momentum < 1):
            raise BadInput(f"learning rate {self.learning_rate} and momentum {self.momentum}: above 0, and in [0, 1)")
        _as_floats(self, "learning_rate", "momentum")


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """One run, as all its parties know it.

    ``weights`` are declared constants in (0, 1], one per client, in the order of ``clients``. ``bound`` is the largest
    absolute value of an update's coordinate; what exceeds it is cut off at the client. ``architecture`` is the hash of
    parameter names and shapes; ``dimension`` their count. ``colluders`` (n_C): clients that may work with the server.
    ``bits``: width of the ring's elements, in fixed point or of the CKKS prime. ``key_rounds``: sums that one CKKS key
    decrypts before clients want another; 0 where there is none. ``corrupt``, ``dropout``: what a sparse graph is made
    for.
    """

    job: str
    protection: Protection
    clients: tuple[str, ...]
    weights: tuple[float, ...]
    bound: Positive
    minimum: int
    threshold: int | None
    mechanism: Mechanism
    optimizer: LocalOptimizer
    architecture: str
    dimension: int
    model_seed: int
    colluders: int = 0
    bits: int = 32
    corrupt: float = 0.1
    dropout: float = 0.1
    key_rounds: int = 0

    def __post_init__(self) -> None:
        _as_floats(self, "bound", "corrupt", "dropout")
        msgspec.structs.force_setattr(self, "weights", tuple(float(weight) for weight in self.weights))

    def encoded(self) -> bytes:
        """The plan's bytes, the same on every machine."""
        return msgspec.json.encode(self)

    def digest(self) -> bytes:
        """SHA-256 of the encoded plan: 32 bytes."""
        return hashlib.sha256(self.encoded()).digest()
