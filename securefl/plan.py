"""The public configuration of a run: what every client checks, and what the session id binds.

A plan holds declared constants only; nothing in it is computed from the clients' records.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from securefl.errors import BadInput
from securefl.learning import ALL, PLAIN, Cohort, Strategy
from securefl.learning import LocalOptimizer as LocalOptimizer
from securefl.privacy.mechanism import MOST_NOISE, Positive, Training, Unit

SMALLEST = 2.0**-30
"""What is clipped or cut off is so within this and its inverse, far from where float32 ends."""

Protection = Literal["plain", "secagg", "ckks-unmasked", "ckks"]


def _as_floats(value: Struct, *names: str) -> None:
    """Whole numbers become floats where a float is meant, so that equal values have equal encodings and digests."""
    for name in names:
        msgspec.structs.force_setattr(value, name, float(getattr(value, name)))


class AdaptiveClip(Struct, frozen=True, forbid_unknown_fields=True):
    """A clip that follows the updates' norms (Andrew et al., NeurIPS 2021, algorithm 1).

    After a round it is multiplied by exp(-``rate`` * (fraction - ``quantile``)), with the fraction of clients whose
    update was within it: a noised count, charged beside the update. ``noise_multiplier``: of that count.
    """

    quantile: Annotated[float, Meta(ge=0, le=1)]
    rate: Positive
    noise_multiplier: Positive

    def __post_init__(self) -> None:
        if not (0 <= self.quantile <= 1 and 0 < self.rate <= 1 and 0 < self.noise_multiplier <= MOST_NOISE):
            raise BadInput("adaptive clipping: a quantile from 0 to 1, a rate above 0 and at most 1, noise above 0")
        _as_floats(self, "quantile", "rate", "noise_multiplier")


class ClientLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """Client-level privacy: updates cut off at L2 norm ``clip``, distributed Skellam noise on their sum.

    ``noise_multiplier``: deviation, in clips, of the noise of the fewest honest contributors together.
    """

    noise_multiplier: Positive
    clip: Positive
    adaptive: AdaptiveClip | None = None

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier <= MOST_NOISE and SMALLEST <= self.clip <= 1 / SMALLEST):
            raise BadInput(f"noise multiplier {self.noise_multiplier} and clip {self.clip}: finite, above 0")
        _as_floats(self, "noise_multiplier", "clip")


class HeldOut(Struct, frozen=True, forbid_unknown_fields=True):
    """Accuracy and loss of each round's model on the clients' own held-out records, as weighted means.

    ``noise_multiplier``: Gaussian noise on each client's two sums, charged to its records; None: exact, not charged.
    ``loss_bound``: where each record's loss is cut off.
    """

    noise_multiplier: Positive | None
    loss_bound: Positive = 4.0

    def __post_init__(self) -> None:
        noise = self.noise_multiplier
        if not (noise is None or 0 < noise <= MOST_NOISE) or not SMALLEST <= self.loss_bound <= 1 / SMALLEST:
            raise BadInput(f"noise multiplier {noise} and loss bound {self.loss_bound}: finite, above 0")
        _as_floats(self, "loss_bound", *(() if noise is None else ("noise_multiplier",)))


class Survey(Struct, frozen=True, forbid_unknown_fields=True):
    """A last round in which nobody trains for the model: each client says, in one of ``bins`` classes, how accurate the
    model, one of its own and one that it tuned are on its held-out records (:mod:`securefl.survey`).

    ``noise_multiplier``: deviation of the distributed noise on the counts, in lengths of what one client adds.
    ``scores``: of each client's Gaussian noise on counts of its records' scores, by class; None: they are not asked.
    """

    noise_multiplier: Positive
    bins: Annotated[int, Meta(ge=2, le=100)] = 10
    scores: Positive | None = None

    def __post_init__(self) -> None:
        scores = 1.0 if self.scores is None else self.scores
        if not (0 < self.noise_multiplier <= MOST_NOISE and 0 < scores <= MOST_NOISE):
            raise BadInput("the noise of a survey is above 0 and finite")
        if not 2 <= self.bins <= 100:
            raise BadInput(f"a survey with {self.bins} classes: 2 to 100")
        _as_floats(self, "noise_multiplier", *(() if self.scores is None else ("scores",)))


class PrivacyTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run releases beside local training, and what its owners declare.

    ``unit``: whose presence the job means to hide. ``disjoint``: every owner declares that nobody's data is at two
    clients; who takes part signs that with the plan. ``simulated``: noise and samples may come from a seed.
    """

    client_level: ClientLevel | None = None
    held_out: HeldOut | None = None
    unit: Unit = "record"
    disjoint: bool = False
    simulated: bool = False
    survey: Survey | None = None


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """One run, as all its parties know it.

    ``weights`` are declared constants in (0, 1], one per client, in the order of ``clients``. ``bound`` is the largest
    absolute value of an update's coordinate; what exceeds it is cut off at the client. ``rounds``: all that there will
    be. ``architecture`` is the hash of parameter names and shapes; ``dimension`` their count. ``colluders`` (n_C):
    clients that may work with the server. ``bits``: width of the ring's elements, in fixed point or of the CKKS prime.
    ``key_rounds``: sums that one CKKS key decrypts before clients want another; 0 where there is none. ``corrupt``,
    ``dropout``: what a sparse graph is made for. ``strategy``: what is done with the mean; ``cohort``: who is asked.
    """

    job: str
    protection: Protection
    clients: tuple[str, ...]
    weights: tuple[float, ...]
    bound: Positive
    minimum: int
    threshold: int | None
    rounds: int
    mechanism: Training
    optimizer: LocalOptimizer
    architecture: str
    dimension: int
    model_seed: int
    colluders: int = 0
    bits: int = 32
    corrupt: float = 0.1
    dropout: float = 0.1
    key_rounds: int = 0
    privacy: PrivacyTerms = PrivacyTerms()
    strategy: Strategy = PLAIN
    cohort: Cohort = ALL

    def __post_init__(self) -> None:
        _as_floats(self, "bound", "corrupt", "dropout")
        msgspec.structs.force_setattr(self, "weights", tuple(float(weight) for weight in self.weights))

    @property
    def expected(self) -> int:
        """How many clients contribute to a sum if nobody is late."""
        return self.cohort.expected(len(self.clients))

    @property
    def largest(self) -> int:
        """The most clients that a sum may have."""
        return self.cohort.largest(len(self.clients))

    @property
    def participations(self) -> int:
        """The most rounds that one client takes part in."""
        return min(self.rounds, self.cohort.participations or self.rounds)

    @property
    def last(self) -> int:
        """The last round's number: that of the survey, where there is one."""
        return self.rounds + (self.privacy.survey is not None)

    def surveys(self, round: int) -> bool:
        """Whether this round asks how good the model is, and leaves it as it is."""
        return round > self.rounds

    def at(self, round: int) -> Plan:
        """The same for one round: clients descend at a constant rate."""
        return msgspec.structs.replace(self, optimizer=self.optimizer.at(round, self.rounds))

    def encoded(self) -> bytes:
        """The plan's bytes, the same on every machine."""
        return msgspec.json.encode(self)

    def digest(self) -> bytes:
        """SHA-256 of the encoded plan: 32 bytes."""
        return hashlib.sha256(self.encoded()).digest()
