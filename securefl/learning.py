"""How a run learns, as public values: how clients descend, what the server does with a mean, who is asked in a round.

None of it weakens a guarantee: descent and strategies see noised gradients and protected sums only. Who is asked is the
server's choice, and nothing is claimed from it.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from securefl.errors import BadInput
from securefl.privacy.mechanism import Positive

Fraction = Annotated[float, Meta(ge=0, lt=1)]
Pace = Literal["constant", "exponential", "linear", "cosine"]
Kind = Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"]
Sampling = Literal["all", "fixed", "poisson"]

_TERMS: Final = 24  # of the cosine's series: exact to the last bits up to pi


def _floats(value: Struct, *names: str) -> None:
    """Whole numbers become floats where a float is meant, so that equal values have equal encodings and digests."""
    for name in names:
        msgspec.structs.force_setattr(value, name, float(getattr(value, name)))


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """What a learning rate is multiplied by in a round r of R, counted from 1.

    ``exponential``: ``decay`` ^ (r - 1). ``linear``: 1 - (r - 1) / R. ``cosine``: (1 + cos(pi (r - 1) / R)) / 2
    (Loshchilov and Hutter, ICLR 2017, equation 5). In the first ``warmup`` rounds that is multiplied by r / warmup.
    Made of + - * / only, so that all machines agree to the bit.
    """

    kind: Pace = "constant"
    decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    warmup: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if (
            not 0 < self.decay <= 1
            or self.warmup < 0
            or self.kind not in ("constant", "exponential", "linear", "cosine")
        ):
            raise BadInput(f"a schedule {self.kind!r}, decay {self.decay}, warm-up {self.warmup}: none that is known")
        _floats(self, "decay")

    def factor(self, round: int, rounds: int) -> float:
        """Above 0 and at most 1."""
        done = (round - 1) / rounds
        found = {"linear": 1 - done, "cosine": (1 + _cosine(math.pi * done)) / 2}.get(self.kind, 1.0)
        if self.kind == "exponential":
            found = _power(self.decay, round - 1)
        return found * min(1.0, round / self.warmup) if self.warmup else found


class LocalOptimizer(Struct, frozen=True, forbid_unknown_fields=True):
    """How a client descends. Changes accuracy, never a guarantee.

    ``proximal``: mu of FedProx, whose gradient mu (w - w_round) is added to each step's (Li et al., MLSys 2020,
    equation 2); it depends on no record.
    """

    learning_rate: Positive
    momentum: Fraction = 0.0
    proximal: Annotated[float, Meta(ge=0)] = 0.0
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        if not (0 < self.learning_rate < math.inf and 0 <= self.momentum < 1):
            raise BadInput(f"learning rate {self.learning_rate} and momentum {self.momentum}: above 0, and in [0, 1)")
        if not 0 <= self.proximal < math.inf:
            raise BadInput(f"a proximal term of {self.proximal}: it is at least 0")
        _floats(self, "learning_rate", "momentum", "proximal")

    def at(self, round: int, rounds: int) -> LocalOptimizer:
        """The same for one round: its rate is constant."""
        rate = self.learning_rate * self.schedule.factor(round, rounds)
        return replace(self, learning_rate=max(rate, math.ulp(0.0)), schedule=Schedule())


class Strategy(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with the mean of a round's updates (:mod:`securefl.strategy`), by whoever can read it.

    ``fedavg``: the model plus ``learning_rate`` times the mean (McMahan et al., AISTATS 2017). ``fedavgm``: with
    ``momentum`` (Hsu et al., 2019). ``fedadam``, ``fedyogi``, ``fedadagrad``: adaptive, with ``momentum`` beta_1,
    ``second`` beta_2 and ``adaptivity`` tau (Reddi et al., ICLR 2021, algorithm 2). ``scaffold``: clients correct
    their steps by control variates (Karimireddy et al., ICML 2020, algorithm 1, option II).
    """

    kind: Kind = "fedavg"
    learning_rate: Positive = 1.0
    momentum: Fraction = 0.0
    second: Fraction = 0.0
    adaptivity: Annotated[float, Meta(ge=0)] = 0.0
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        if not (0 < self.learning_rate < math.inf and 0 <= self.momentum < 1 and 0 <= self.second < 1):
            raise BadInput(f"strategy {self.kind}: a rate above 0, moments in [0, 1)")
        if self.adaptive != (0 < self.adaptivity < math.inf):
            raise BadInput(f"strategy {self.kind}: adaptivity {self.adaptivity}, above 0 where it is adaptive, else 0")
        _floats(self, "learning_rate", "momentum", "second", "adaptivity")

    @property
    def adaptive(self) -> bool:
        """Whether each coordinate has a rate of its own."""
        return self.kind in ("fedadam", "fedyogi", "fedadagrad")

    @property
    def moments(self) -> int:
        """How many vectors as long as the model the strategy remembers, and clients need not know."""
        return 2 if self.adaptive else 1 if self.kind == "fedavgm" else 0

    @property
    def controlled(self) -> bool:
        """Whether clients need to know a control variate, as long as the model."""
        return self.kind == "scaffold"


PLAIN = Strategy()


class Cohort(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asked in a round: all, ``size`` at random (``fixed``), or each by itself so that ``size`` are expected
    (``poisson``). ``extra``: as many more are asked, so that some may be late. ``participations``: the most rounds that
    one client takes part in; None: all. ``groups``: into so many, at random, those who are asked are divided; each has
    a sum of its own, and the median of the groups' means is taken, coordinate by coordinate (median of means, Minsker,
    Bernoulli 2015): fewer than half of them can be spoiled. Each sum then hides fewer clients.
    """

    sampling: Sampling = "all"
    size: Annotated[int, Meta(ge=1)] | None = None
    extra: Annotated[int, Meta(ge=0)] = 0
    participations: Annotated[int, Meta(ge=1)] | None = None
    groups: Annotated[int, Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise BadInput(f"{self.groups} groups: at least one")
        if (self.sampling == "all") != (self.size is None) or (self.sampling == "all" and self.extra):
            raise BadInput("a cohort has a size where it is sampled, and none where all are asked")

    def expected(self, clients: int) -> int:
        """How many contribute to a sum, of so many, if nobody is late: a public constant."""
        return (clients if self.size is None else min(self.size, clients)) // self.groups

    def largest(self, clients: int) -> int:
        """The most that a sum may have."""
        return -(-self.most(clients) // self.groups)

    def most(self, clients: int) -> int:
        """The most that a round may ask: of a Poisson sample six deviations above the mean, one draw in 10^9."""
        if self.size is None:
            return clients
        asked = self.size + self.extra
        return min(clients, asked + (math.ceil(6 * math.sqrt(asked)) if self.sampling == "poisson" else 0))


ALL = Cohort()


def _cosine(x: float) -> float:
    """By its series (DLMF 4.19.2), for x from 0 to pi."""
    found, term = 0.0, 1.0
    for k in range(_TERMS):
        found += term
        term *= -x * x / ((2 * k + 1) * (2 * k + 2))
    return found


def _power(base: float, exponent: int) -> float:
    """By squaring: the same bits everywhere."""
    found = 1.0
    while exponent:
        found, base, exponent = (found * base if exponent & 1 else found), base * base, exponent >> 1
    return found
