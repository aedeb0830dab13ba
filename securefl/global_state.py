"""What travels as "the model": one float32 vector, the parameters and behind them whatever else moves with each round.

Everything that the next round depends on is in it, so that a checkpoint is whole, whoever can read it. In this order:
parameters; single numbers (``extras``) and a survey's counts; what clients must know of the strategy (``control``);
what only whoever takes its step remembers (``moments``). An update has the first two; a round is announced with the
first three.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from securefl.errors import BadInput
from securefl.plan import Plan

CLIP: Final = "clip"
ACCURACY: Final = "accuracy"
LOSS: Final = "loss"
FARTHEST: Final = 2.0**20
"""How far an adaptive clip may wander from where it began, either way."""

_UNKNOWN: Final = -1.0  # of a metric before the first round; none is negative


class Measured(Struct, frozen=True):
    """Weighted means over the clients' held-out records, of the model that a round began with."""

    accuracy: float
    loss: float


def extras(plan: Plan) -> tuple[str, ...]:
    """What follows the parameters, by name; of each, one number."""
    adaptive = plan.privacy.client_level is not None and plan.privacy.client_level.adaptive is not None
    return ((CLIP,) if adaptive else ()) + ((ACCURACY, LOSS) if plan.privacy.held_out is not None else ())


def surveyed(plan: Plan, vector: NDArray[np.float32]) -> tuple[float, ...]:
    """What the survey counted (:mod:`securefl.survey`); zeros before it, nothing where there is none."""
    return tuple(map(float, vector[plan.dimension + len(extras(plan)) : sent(plan)]))


def survey_length(plan: Plan) -> int:
    """How many numbers a survey counts: for each of three models, and for scores of both classes."""
    asked = plan.privacy.survey
    return 0 if asked is None else asked.bins * (3 + 2 * (asked.scores is not None))


def sent(plan: Plan) -> int:
    """How many numbers an update has: parameters, single numbers, the survey's counts."""
    return plan.dimension + len(extras(plan)) + survey_length(plan)


def announced(plan: Plan) -> int:
    """How many numbers of the vector clients need."""
    return sent(plan) + plan.dimension * plan.strategy.controlled


def length(plan: Plan) -> int:
    """How many numbers the vector has."""
    return announced(plan) + plan.dimension * plan.strategy.moments


def first(plan: Plan, parameters: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector before the first round: control variates and moments are zero, as in the papers, but for v (tau^2)."""
    starting = {CLIP: plan.privacy.client_level.clip if plan.privacy.client_level else _UNKNOWN}
    behind = [starting.get(name, _UNKNOWN) for name in extras(plan)]
    counts = np.zeros(survey_length(plan), np.float32)
    memory = np.zeros(length(plan) - sent(plan), np.float32)
    if plan.strategy.adaptive:
        memory[-plan.dimension :] = plan.strategy.adaptivity**2  # Reddi et al., section 3: v_-1 >= tau^2
    return np.concatenate([parameters, np.array(behind, np.float32), counts, memory])


def check(plan: Plan, vector: NDArray[np.float32]) -> None:
    """Raises ``BadInput`` for what is announced and no round of this plan leads to: a server may announce anything.

    Of a clip far from where it began an update would lose its scale, or its finiteness.
    """
    known = announced(plan)
    if vector.shape != (known,) or not np.isfinite(vector).all():
        raise BadInput(f"a model of shape {vector.shape}, or one that is not finite, where {known} were planned")
    start = plan.privacy.client_level.clip if plan.privacy.client_level else 1.0
    if plan.privacy.client_level is not None and not start / FARTHEST <= clip(plan, vector) * (1 + 1e-6):
        raise BadInput("the announced clip is smaller than any that this plan leads to")
    if plan.privacy.client_level is not None and not clip(plan, vector) <= start * FARTHEST * (1 + 1e-6):
        raise BadInput("the announced clip is larger than any that this plan leads to")


def check_whole(plan: Plan, vector: NDArray[np.float32]) -> None:
    """The same for the whole vector, as somebody else kept it."""
    if vector.shape != (length(plan),) or not np.isfinite(vector).all():
        raise BadInput(f"a state of shape {vector.shape}, or one that is not finite, where {length(plan)} were planned")
    if plan.strategy.adaptive and not (moments(plan, vector)[1] >= 0).all():
        raise BadInput("the strategy's second moments are negative, which no round leads to")
    check(plan, vector[: announced(plan)])


def parameters(plan: Plan, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's own, shape (dimension,)."""
    return vector[: plan.dimension]


def control(plan: Plan, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The server's control variate c, shape (dimension,). Only for plans whose strategy has one."""
    return vector[sent(plan) : announced(plan)]


def moments(plan: Plan, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the strategy remembers, shape (moments, dimension)."""
    return vector[announced(plan) : length(plan)].reshape(plan.strategy.moments, plan.dimension)


def clip(plan: Plan, vector: NDArray[np.float32]) -> float:
    """The L2 norm at which updates are cut off now. Only for plans with client-level privacy."""
    if plan.privacy.client_level is None:
        raise ValueError("a plan without client-level privacy cuts no update off")
    found = _extra(plan, vector, CLIP)
    return plan.privacy.client_level.clip if found is None else found


def measured(plan: Plan, vector: NDArray[np.float32]) -> Measured | None:
    """What the last round measured; None before the first, and where nothing is measured."""
    accuracy, loss = _extra(plan, vector, ACCURACY), _extra(plan, vector, LOSS)
    return None if accuracy is None or loss is None or accuracy < 0 else Measured(accuracy, loss)


def _extra(plan: Plan, vector: NDArray[np.float32], name: str) -> float | None:
    names = extras(plan)
    return float(vector[plan.dimension + names.index(name)]) if name in names else None
