"""What a session is: the roster it runs among and the context that its id binds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import msgspec

from protocols.base import ClientId
from protocols.encoding import Layout
from protocols.errors import ConfigurationError, Inconsistent
from protocols.graph import CohortRules, Graph
from protocols.primitives import digest
from protocols.wire import VERSION

# A name is relayed to all: it may not grow.
LONGEST_NAME = 255


class Step(IntEnum):
    """What a signed message is for: exchanges 0 to 5 of a round in order; a key or a model on its way; the sum that
    exchange 5 is about; and a complaint, which takes an input's place. Signatures cover the number.
    """

    KEYS = 0
    SHARES = 1
    INPUT = 2
    CONSISTENCY = 3
    UNMASK = 4
    APPLY = 5
    JOIN = 6
    GIVE_KEY = 7
    RECEIVE_KEY = 8
    SEAL_MODEL = 9
    INSTALL_MODEL = 10
    AGREE = 11
    COMPLAINT = 12


@dataclass(frozen=True)
class Roster:
    """The clients of a run and their pinned Ed25519 public keys."""

    keys: Mapping[ClientId, bytes]

    def __post_init__(self) -> None:
        if any(not name or len(name) > LONGEST_NAME for name in self.keys):
            raise ConfigurationError(f"a roster member's name is empty or longer than {LONGEST_NAME} characters")
        if len(set(self.keys.values())) != len(self.keys):
            raise ConfigurationError("two roster members share one public key")

    @cached_property
    def digest(self) -> bytes:
        return digest("roster", *(part for name in sorted(self.keys) for part in (name.encode(), self.keys[name])))

    @cached_property
    def points(self) -> Mapping[ClientId, int]:
        """Every client's Shamir point: its place in the sorted roster, from 1."""
        return {name: place for place, name in enumerate(sorted(self.keys), 1)}

    def public_key(self, client: ClientId) -> bytes:
        try:
            return self.keys[client]
        except KeyError as error:
            raise Inconsistent(f"{client!r} is not on the roster") from error


class Context(msgspec.Struct, frozen=True, array_like=True):
    """Everything that the parties of one session must agree on. Each computes it from its own values.

    ``configuration``: digest of the public plan. ``model``: tag of the model that this client was given; clients given
    different models have different session ids (Pasquini et al., CCS 2022). ``key_id``: of the CKKS key, else empty.
    """

    run: str
    round: int
    attempt: int
    configuration: bytes
    roster: bytes
    model: bytes
    key_id: bytes = b""

    @property
    def session(self) -> bytes:
        """The session id: 32 bytes."""
        return digest("session", bytes([VERSION]), msgspec.msgpack.encode(self))


@dataclass(frozen=True)
class Terms:
    """One session as its parties know it: who may take part, what is agreed, how vectors look, masked or not."""

    context: Context
    roster: Roster
    rules: CohortRules
    layout: Layout
    masked: bool

    def __post_init__(self) -> None:
        self.rules.threshold_for(min(len(self.roster.keys), self.layout.clients))
        if self.context.roster != self.roster.digest:
            raise ConfigurationError("the session's context names another roster than its terms")

    def check_cohort(self, count: int) -> None:
        """Raises ``ConfigurationError`` for more contributors than the encoding has room for: their sum could wrap."""
        if count > self.layout.clients:
            raise ConfigurationError(f"a sum of {count} could overflow an encoding for {self.layout.clients} clients")

    def graph(self, members: tuple[ClientId, ...], keys: bytes) -> Graph:
        """The graph of a key list's members; ``ConfigurationError`` where rules or encoding do not allow so many."""
        self.check_cohort(len(members))
        return self.rules.graph(members, keys)

    @cached_property
    def session(self) -> bytes:
        return digest(
            "terms", self.context.session, self.layout.digest, bytes([self.masked]), msgspec.msgpack.encode(self.rules)
        )
