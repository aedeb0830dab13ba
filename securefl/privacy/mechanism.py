"""What is released, as frozen values that fix the mathematics and nothing else, and how each is charged.

What changes only speed or accuracy (learning rate, batch layout, device) is not here. A kind of release that is not
here cannot be charged, and is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from securefl.errors import BadInput

Rate = Annotated[float, Meta(gt=0, le=1)]
Steps = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]

Unit = Literal["record", "patient", "client"]
"""Whose presence a guarantee hides. "patient": the owner declares that no patient has more than one record."""

COARSENESS: tuple[Unit, ...] = ("record", "patient", "client")
"""What hides one hides all before it, too, and not what comes after."""

NEIGHBOURS: dict[Unit, str] = {"record": "add-or-remove-one", "patient": "add-or-remove-one", "client": "zero-out"}


@dataclass(frozen=True, order=True)
class SampledGaussian:
    """A cost: ``count`` Poisson-sampled Gaussians, noise in multiples of the sensitivity; a ``dp_accounting`` event."""

    noise_multiplier: float
    sampling_rate: float
    count: int


@dataclass(frozen=True, order=True)
class SkellamSum:
    """A cost: ``count`` sums of integers under symmetric Skellam noise of ``variance``, which have an RDP curve only.

    ``l1``, ``l2``: sensitivities. Curve: Agarwal et al., NeurIPS 2021, corollary 3.6, for integer orders.
    """

    l1: float
    l2: float
    variance: float
    count: int


Cost = SampledGaussian | SkellamSum


def _require(value: Struct, most: dict[str, float]) -> None:
    """The bounds of the types above, also for values built in Python, where msgspec does not look.

    Whole numbers become floats where a float is meant, so that equal values have equal encodings and digests.
    """
    for name, limit in most.items():
        given = getattr(value, name)
        least = _LEAST_RATE if name == "sampling_rate" else 0
        if not (0 < given <= limit and given >= least):
            raise BadInput(f"{name} is {given}: it must be above {least:g} and at most {limit:g}")
        if name not in _WHOLE:
            msgspec.structs.force_setattr(value, name, float(given))


_WHOLE = ("steps", "dimension", "honest")
# Beyond these a value is a mistake, and squares of it would overflow where they are computed with.
MOST_NOISE = 1e6
"""Of a noise multiplier."""
_MOST = 2.0**62
# Of so many steps, or at so small a rate, what a step costs is lost to rounding.
_MOST_STEPS = 1e9
_LEAST_RATE = 1e-9
LEAST_DELTA = 1e-12
"""Below this, composed privacy loss distributions are rounding errors."""


class DPSGD(Struct, frozen=True, tag="dpsgd", tag_field="mechanism", forbid_unknown_fields=True):
    """DP-SGD (Abadi et al., CCS 2016, algorithm 1) with Poisson sampling, for one round at one client.

    Each of ``steps`` steps takes every record independently with probability ``sampling_rate``, clips each record's
    gradient to L2 norm ``clip`` and adds Gaussian noise of standard deviation ``noise_multiplier * clip`` to their sum.

    Guarantee: record level, add-or-remove-one, for everyone who sees the update; epsilon is the accountant's for the
    composition of all rounds, and assumes that the client sampled and noised as described here.
    """

    noise_multiplier: Positive
    sampling_rate: Rate
    steps: Steps
    clip: Positive = 1.0

    def __post_init__(self) -> None:
        _require(self, {"noise_multiplier": MOST_NOISE, "sampling_rate": 1, "steps": _MOST_STEPS, "clip": _MOST})


class NoisedSum(Struct, frozen=True, tag="noised-sum", tag_field="mechanism", forbid_unknown_fields=True):
    """One sum over all records of a client, each record's vector at most ``bound`` long (L2), with Gaussian noise of
    standard deviation ``noise_multiplier * bound`` on every coordinate (Dwork and Roth 2014, appendix A).

    Guarantee: record level, add-or-remove-one, for everyone who sees the sum.
    """

    released: Literal["metrics", "statistics", "scores"]
    noise_multiplier: Positive
    bound: Positive

    def __post_init__(self) -> None:
        _require(self, {"noise_multiplier": MOST_NOISE, "bound": _MOST})


class Skellam(Struct, frozen=True, tag="skellam", tag_field="mechanism", forbid_unknown_fields=True):
    """Distributed Skellam noise on one sum of clients' vectors (Agarwal et al., NeurIPS 2021, algorithm 1).

    Each client clips its whole vector to L2 norm 1, multiplies by ``scale``, rounds each of ``dimension`` coordinates
    to one of the two nearest integers, and adds symmetric Skellam noise of variance ``(noise_multiplier * scale)**2 /
    honest``. The noises add up: ``honest`` of them have the variance ``(noise_multiplier * scale)**2``.

    Guarantee: client level, zero-out (a client's vector against zeros, the same clients taking part), for everyone who
    sees the sum and knows the noise of all contributors but ``honest``. Assumes that these noised as described here.
    """

    released: Literal["update", "clipped", "survey"]
    noise_multiplier: Positive
    scale: Positive
    dimension: Steps
    honest: Steps

    def __post_init__(self) -> None:
        _require(self, {"noise_multiplier": MOST_NOISE, "scale": _MOST, "dimension": _MOST, "honest": _MOST})

    @property
    def variance(self) -> float:
        """Of the noise of ``honest`` clients together, in squared integer steps."""
        return (self.noise_multiplier * self.scale) ** 2


class SGD(Struct, frozen=True, tag="sgd", tag_field="mechanism", forbid_unknown_fields=True):
    """SGD with Poisson sampling, no clipping, no noise. Guarantee: none; outputs say "no differential privacy"."""

    sampling_rate: Rate
    steps: Steps

    def __post_init__(self) -> None:
        _require(self, {"sampling_rate": 1, "steps": _MOST})


Training = DPSGD | SGD
"""What one round of local training can be."""

Release = DPSGD | NoisedSum | Skellam
"""What can be charged."""

Mechanism = DPSGD | NoisedSum | Skellam | SGD


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that a data owner allows to be spent on one data set, over all rounds, runs and jobs."""

    epsilon: Positive
    delta: Annotated[float, Meta(gt=0, lt=1)]

    def __post_init__(self) -> None:
        _require(self, {"epsilon": _MOST, "delta": math.nextafter(1, 0)})
        if self.delta < LEAST_DELTA:
            raise BadInput(f"delta is {self.delta}: below {LEAST_DELTA:g} no accountant here is exact")


def cost(mechanism: Mechanism, unit: Unit = "record") -> Cost:
    """How a release is charged to a data set whose unit of privacy is ``unit``.

    Raises ``BadInput`` for what has no epsilon there: SGD, and record-level noise where whole clients are to be hidden.
    """
    match mechanism:
        case Skellam():
            return _skellam_cost(mechanism, unit)
        case DPSGD() | NoisedSum() if unit == "client":
            raise BadInput(
                f"{type(mechanism).__name__} hides one record and the unit of this data set is a whole client: "
                "use client-level noise"
            )
        case DPSGD():
            return SampledGaussian(mechanism.noise_multiplier, mechanism.sampling_rate, mechanism.steps)
        case NoisedSum():
            return SampledGaussian(mechanism.noise_multiplier, 1.0, 1)
        case _:
            raise BadInput(
                f"{type(mechanism).__name__} has no epsilon: no budget covers it; "
                "train with DPSGD or client-level noise, or label it as not private"
            )


def _skellam_cost(mechanism: Skellam, unit: Unit) -> SkellamSum:
    # Rounding moves each coordinate by less than 1, so a vector of length 1 * scale by less than sqrt(dimension). Where
    # one record is added, a client's vector changes from one of that length to another: twice as much as to zeros.
    root = math.sqrt(mechanism.dimension)
    l2 = (mechanism.scale + root) * (1 if unit == "client" else 2)
    # Of integers, the sum of absolute values is at most that of squares.
    return SkellamSum(min(root * l2, l2 * l2), l2, mechanism.variance, 1)


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """The mechanism as plain values, for reports and ledgers."""
    return {"mechanism": type(mechanism).__name__} | {f: getattr(mechanism, f) for f in mechanism.__struct_fields__}
