"""What one round of local training releases, as frozen values that fix the mathematics and nothing else.

What changes only speed or accuracy (learning rate, batch layout, device) is not here.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from securefl.errors import BadInput

Rate = Annotated[float, Meta(gt=0, le=1)]
Steps = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


def _require(value: Struct, most: dict[str, float]) -> None:
    """The bounds of the types above, also for values built in Python, where msgspec does not look.

    Whole numbers become floats where a float is meant, so that equal values have equal encodings and digests.
    """
    for name, limit in most.items():
        given = getattr(value, name)
        if not 0 < given <= limit or math.isinf(given):
            upper = "" if math.isinf(limit) else f" and at most {limit:g}"
            raise BadInput(f"{name} is {given}: it must be a finite number above 0{upper}")
        if name != "steps":
            msgspec.structs.force_setattr(value, name, float(given))


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
        _require(self, {"noise_multiplier": math.inf, "sampling_rate": 1, "steps": math.inf, "clip": math.inf})


class SGD(Struct, frozen=True, tag="sgd", tag_field="mechanism", forbid_unknown_fields=True):
    """SGD with Poisson sampling, no clipping, no noise. Guarantee: none; outputs say "no differential privacy"."""

    sampling_rate: Rate
    steps: Steps

    def __post_init__(self) -> None:
        _require(self, {"sampling_rate": 1, "steps": math.inf})


Mechanism = DPSGD | SGD


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that a data owner allows to be spent on one data set, over all rounds, runs and jobs."""

    epsilon: Positive
    delta: Annotated[float, Meta(gt=0, lt=1)]

    def __post_init__(self) -> None:
        _require(self, {"epsilon": math.inf, "delta": math.nextafter(1, 0)})


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """The mechanism as plain values, for reports and ledgers."""
    return {"mechanism": type(mechanism).__name__} | {f: getattr(mechanism, f) for f in mechanism.__struct_fields__}
