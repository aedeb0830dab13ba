"""What server and clients tell each other about a round outside the protocol, and the digests that both compute."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from protocols.aggregation.messages import Envelope
from protocols.aggregation.session import Context, Roster, Terms
from protocols.errors import MalformedMessage
from protocols.primitives import digest
from securefl import global_state, protection
from securefl.errors import BadInput
from securefl.plan import Plan

# Both stand in ledgers and statements, and are shown to people: short, printable, and numbers that JSON can say.
Run = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.-]{1,64}\Z")]
_Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_SMALL: Final = 2**20  # bytes


class Announcement(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One attempt at one round. ``model``: float32, little-endian; empty where the server cannot read it.

    ``tag``: what the model is called in the session id; ``key_id``: the CKKS key, empty in fixed point. ``evidence``:
    in the first round under a new key, the clients' signed words for it. ``memory``: the digest of what the strategy
    remembers and clients need not see, so that all agree on that, too; empty where there is no such thing.
    """

    run: Run
    round: _Number
    attempt: _Number
    plan: Plan
    model: bytes
    tag: bytes
    key_id: bytes = b""
    evidence: tuple[Envelope, ...] = ()
    memory: Annotated[bytes, Meta(max_length=32)] = b""

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decoded(cls, data: bytes) -> Announcement:
        """Raises ``MalformedMessage`` for anything else."""
        return (_known if len(data) <= _SMALL else _decoded)(data)

    def vector(self) -> NDArray[np.float32]:
        """The model and what clients need beside it (:mod:`securefl.global_state`).

        Raises ``MalformedMessage`` unless they are finite and as many as planned.
        """
        if len(self.model) != 4 * global_state.announced(self.plan):
            raise MalformedMessage(
                f"a model of {len(self.model)} bytes, {4 * global_state.announced(self.plan)} were announced"
            )
        vector = np.frombuffer(self.model, "<f4")
        try:
            global_state.check(self.plan, vector)
        except BadInput as error:
            raise MalformedMessage(str(error)) from error
        return vector


def _decoded(data: bytes) -> Announcement:
    try:
        return msgspec.msgpack.decode(data, type=Announcement, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
        raise MalformedMessage(f"not an announcement: {error}") from error


_known = lru_cache(maxsize=2)(_decoded)  # many clients of one process are sent the same one


class KeyReceived(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client says once it has a key: which one, the round of its own model, and that one's tag under the key."""

    key_id: bytes
    round: int
    tag: bytes

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decoded(cls, data: bytes) -> KeyReceived:
        """Raises ``MalformedMessage`` for anything else."""
        try:
            return msgspec.msgpack.decode(data, type=cls, strict=True)
        except msgspec.DecodeError as error:
            raise MalformedMessage(f"not a key holder's answer: {error}") from error


def public_tag(model: bytes, memory: bytes = b"") -> bytes:
    """The tag of a model that the server may read: a labelled hash of what is announced."""
    return digest("public model", model, memory) if memory else digest("public model", model)


class Shown(NamedTuple):
    """What is announced of a global vector: the part that clients need, and the digest of the rest."""

    model: bytes
    memory: bytes

    @property
    def tag(self) -> bytes:
        return public_tag(self.model, self.memory)


def shown(plan: Plan, whole: bytes) -> Shown:
    """That of a whole vector (:mod:`securefl.global_state`): float32, little-endian; of nothing, nothing."""
    end = 4 * global_state.announced(plan)
    return Shown(whole[:end], digest("strategy memory", whole[end:]) if len(whole) > end else b"")


def terms(plan: Plan, roster: Roster, run: str, round: int, attempt: int, tag: bytes, key_id: bytes) -> Terms:
    """The session of one attempt, as each party computes it from what it holds itself."""
    chosen = protection.protection_of(plan)
    context = Context(run, round, attempt, plan.digest(), roster.digest, tag, key_id)
    return Terms(context, roster, protection.rules(plan), protection.layout(plan), chosen.masked)
