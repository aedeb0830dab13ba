"""What a client knows at each step of a round, and nothing more: one frozen record a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from protocols.aggregation.messages import Advertised, Envelope, SharePair
from protocols.base import ClientId
from protocols.encoding import Floats, Integers
from protocols.errors import ConfigurationError
from protocols.graph import Graph
from protocols.primitives import AgreementKey


@dataclass(frozen=True)
class Contribution:
    """What a client puts in. ``update`` is asked for once, after the shares are dealt: that is when it may train.

    ``noise``: whole steps to add to it in the ring, asked for once, too. ``witness``: what all others are shown at the
    start; ``witnessed`` is called with what the neighbours showed, each as its sender signed it.

    ``admit`` hears who may be in the sum, ever fewer: U1, U2 (before the update is asked for) and U3; ``opening`` hears
    U3 again, before the first share of it leaves. Either may raise: this client then goes no further. Without masks
    there is no such set, and neither is called.
    """

    update: Callable[[], Floats] = field(repr=False)
    weight: float = 1.0
    witness: bytes = b""
    noise: Callable[[], Integers | None] = field(default=lambda: None, repr=False)
    witnessed: Callable[[Mapping[ClientId, bytes]], None] = field(default=lambda shown: None, repr=False)
    admit: Callable[[Collection[ClientId]], None] = field(default=lambda among: None, repr=False)
    opening: Callable[[Collection[ClientId]], None] = field(default=lambda survivors: None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ConfigurationError(f"a weight of {self.weight}: sums are sure not to wrap only for weights in (0, 1]")


@dataclass(frozen=True)
class Ready:
    """Nothing said yet."""


@dataclass(frozen=True)
class Advertising:
    """Keys are out; the key list is awaited."""

    mask: AgreementKey = field(repr=False)
    share: AgreementKey = field(repr=False)
    own: Envelope = field(repr=False)


@dataclass(frozen=True)
class Cohort:
    """The key list U1 that this client accepted: its digest, the graph that follows, its neighbours' and own keys."""

    keys: bytes
    graph: Graph
    advertised: Mapping[ClientId, Advertised] = field(repr=False)


@dataclass(frozen=True)
class Sharing:
    """Shares are dealt; what the others dealt is awaited. ``own``: the share kept for oneself, if one is."""

    cohort: Cohort
    mask: AgreementKey = field(repr=False)
    share: AgreementKey = field(repr=False)
    self_seed: bytes = field(repr=False)
    own: Mapping[ClientId, SharePair] = field(repr=False)


@dataclass(frozen=True)
class Masked:
    """The input is out; the survivor set is awaited.

    ``shared``: U2 as marked; ``members``: the digest of U1 and U2; ``held``: what those in U2 dealt.
    """

    cohort: Cohort
    shared: bytes
    members: bytes
    held: Mapping[ClientId, SharePair] = field(repr=False)


@dataclass(frozen=True)
class Consenting:
    """The survivor set is signed; proof that enough others signed the same is awaited."""

    cohort: Cohort
    shared: bytes
    members: bytes
    held: Mapping[ClientId, SharePair] = field(repr=False)
    survivors: bytes


@dataclass(frozen=True)
class Open:
    """Without masks: the input is awaited next."""


@dataclass(frozen=True)
class Spent:
    """The end, or the end after an error."""


State = Ready | Advertising | Sharing | Masked | Consenting | Open | Spent
