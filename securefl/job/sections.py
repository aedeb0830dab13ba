"""The sections of a job file, as values: types and ranges. What holds between them is in ``checks``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from securefl.learning import Fraction, Pace, Sampling
from securefl.plan import Protection
from securefl.privacy.mechanism import Positive, Rate, Steps, Unit

Count = Annotated[int, Meta(ge=1)]
Function = Annotated[str, Meta(max_length=500)]
"""``package.module:function``."""


class About(Struct, frozen=True, forbid_unknown_fields=True):
    """``[job]``: what the run is called and how long it lasts."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    rounds: Annotated[int, Meta(ge=1, le=1_000_000)]


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """``[data]``: a pilot, or a loader of your own; ``name`` is the data set's name in the ledgers.

    ``sizes``: declared numbers of records, public constants; a client without one declares the true number.
    ``held_out``: a loader of records that are not trained on but measured with. ``disjoint``: nobody's data is at two
    clients, as all owners declare.
    """

    clients: tuple[str, ...]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    pilot: str | None = None
    loader: Function | None = None
    test: Function | None = None
    sizes: dict[str, Count] = field(default_factory=dict)
    held_out: Function | None = None
    disjoint: bool = False


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """``[model]``: who builds it (None: the pilot) and the public seed of its first values."""

    factory: Function | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """``[training]``: one round of local training: so many ``steps``, or as many as make up ``epochs``.

    ``proximal``: mu of FedProx. ``schedule``, ``decay`` and ``warmup``: of the learning rate, over the rounds.
    """

    learning_rate: Positive
    sampling_rate: Rate
    steps: Steps | None = None
    epochs: Positive | None = None
    momentum: Fraction = 0.0
    proximal: Annotated[float, Meta(ge=0)] = 0.0
    schedule: Pace = "constant"
    decay: Rate | None = None
    warmup: Annotated[int, Meta(ge=0)] = 0


class Strategy(Struct, frozen=True, forbid_unknown_fields=True):
    """``[strategy]``: what is done with a round's mean; None: what the ``kind`` is usually run with. ``mean``: by the
    clients' declared weights, or of all alike.
    """

    kind: Annotated[str, Meta(max_length=40)] = "fedavg"
    mean: Literal["weighted", "simple"] = "weighted"
    learning_rate: Positive | None = None
    momentum: Fraction | None = None
    second: Fraction | None = None
    adaptivity: Positive | None = None
    schedule: Pace = "constant"
    decay: Rate | None = None
    warmup: Annotated[int, Meta(ge=0)] = 0


class Cohort(Struct, frozen=True, forbid_unknown_fields=True):
    """``[cohort]``: who is asked in a round. ``size``: so many, or so many on average; ``extra``: as many more, since
    some may be late; ``participations``: the most rounds that one client takes part in. ``groups``: sums a round, of
    whose means the median is taken.
    """

    sampling: Sampling = "all"
    size: Count | None = None
    extra: Annotated[int, Meta(ge=0)] = 0
    participations: Count | None = None
    groups: Count = 1


class Stopping(Struct, frozen=True, forbid_unknown_fields=True):
    """``[stopping]``: end the run when so many rounds brought no accuracy that is higher ``by`` so much, on the public
    test set or on the clients' held-out records.
    """

    patience: Count
    by: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    on: Literal["test", "held-out"] = "test"


class Privacy(Struct, frozen=True, forbid_unknown_fields=True):
    """``[privacy]``: noise, clip and each owner's budget. ``ledger`` is a folder; a relative one lies in the run's.

    ``unit``: whom the noise hides; records (or patients, with one record each) by DP-SGD at each client, whole clients
    by noise on the sum of updates. ``epsilon`` and ``delta`` cap all that is ever spent on the data; without a
    ``noise_multiplier`` the run's noise is the least that keeps it within ``target_epsilon`` (default: ``epsilon``).
    ``adaptive_quantile``: the clip of client-level noise follows this quantile of the updates' norms.
    """

    ledger: str
    enabled: bool = True
    unit: Unit = "record"
    noise_multiplier: Positive | None = None
    clip: Positive = 1.0
    epsilon: Positive | None = None
    delta: Annotated[float, Meta(gt=0, lt=1)] | None = None
    target_epsilon: Positive | None = None
    adaptive_quantile: Annotated[float, Meta(ge=0, le=1)] | None = None
    adaptive_rate: Rate = 0.2


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """``[metrics]``: accuracy and loss on the clients' held-out records, noised and charged; or ``exact``, a hazard."""

    noise_multiplier: Positive | None = None
    exact: bool = False
    loss_bound: Positive = 4.0


class Survey(Struct, frozen=True, forbid_unknown_fields=True):
    """``[survey]``: a last round that asks how good the model is at each client, in ``bins`` classes, against a model
    of its own and one that it tuned; noised and charged. ``scores``: noise of scores by class, for AUC and calibration.
    """

    noise_multiplier: Positive
    bins: Annotated[int, Meta(ge=2, le=100)] = 10
    scores: Positive | None = None


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
    """``[simulation]``: clients that go silent on purpose, as ``CLIENT@EXCHANGE`` or ``CLIENT@EXCHANGE:ROUND``; and,
    only if it is ``enabled``, a ``seed`` for noise and samples, which then protect nobody.
    """

    enabled: bool = False
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    drop: tuple[str, ...] = ()
