"""The sections of a job file, as values: types and ranges. What holds between them is in ``checks``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from securefl.plan import Protection
from securefl.privacy.mechanism import Positive, Rate, Steps

Count = Annotated[int, Meta(ge=1)]


class About(Struct, frozen=True, forbid_unknown_fields=True):
    """``[job]``: what the run is called and how long it lasts."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    rounds: Count


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """``[data]``: a pilot, or a loader of your own; ``name`` is the data set's name in the ledgers.

    ``sizes``: declared numbers of records, public constants; a client without one declares the true number.
    """

    clients: tuple[str, ...]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    pilot: str | None = None
    loader: str | None = None
    test: str | None = None
    sizes: dict[str, Count] = field(default_factory=dict)


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """``[model]``: who builds it (None: the pilot) and the public seed of its first values."""

    factory: str | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """``[training]``: one round of local training."""

    learning_rate: Positive
    sampling_rate: Rate
    steps: Steps
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Privacy(Struct, frozen=True, forbid_unknown_fields=True):
    """``[privacy]``: DP-SGD and each owner's budget. ``ledger`` is a folder; one that is relative lies in the run's."""

    ledger: str
    enabled: bool = True
    noise_multiplier: Positive | None = None
    clip: Positive = 1.0
    epsilon: Positive | None = None
    delta: Annotated[float, Meta(gt=0, lt=1)] | None = None


class Shield(Struct, frozen=True, forbid_unknown_fields=True):
    """``[protection]``: what hides updates, from how many colluders, and how many clients must be left.

    ``bits`` is the width of one number of an update on the wire; under CKKS it follows from ``precision`` or, in the
    ``compact`` profile, from the noise of the updates. ``key_rounds``: sums that one CKKS key decrypts. ``corrupt``
    and ``dropout`` are for more than 100 clients, who mask with a few neighbours each.
    """

    kind: Protection = "secagg"
    bound: Positive = 8.0
    threshold: Annotated[int, Meta(ge=2)] | None = None
    minimum: Count | None = None
    colluders: Annotated[int, Meta(ge=0)] = 0
    bits: int | None = None
    profile: Literal["standard", "compact"] = "standard"
    precision: Positive | None = None
    key_rounds: Count | None = None
    corrupt: Annotated[float, Meta(ge=0, lt=1)] | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None


class Simulation(Struct, frozen=True, forbid_unknown_fields=True):
    """``[simulation]``: clients that go silent on purpose, as ``CLIENT@EXCHANGE`` or ``CLIENT@EXCHANGE:ROUND``."""

    drop: tuple[str, ...] = ()
