"""From a sum of updates to the next model: pure and deterministic, so that all who take it agree to the bit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from securefl import global_state
from securefl.learning import Strategy
from securefl.plan import AdaptiveClip, Plan

# Squarings with which exp is approached: below the rate's own arbitrariness, and the same bits everywhere.
_SQUARINGS: Final = 20


class Summed(NamedTuple):
    """One sum: of weight times update, and whose."""

    total: NDArray[np.float64]
    contributors: Collection[str]


def of_groups(plan: Plan, vector: NDArray[np.float32], sums: Sequence[Summed], round: int = 1) -> NDArray[np.float32]:
    """The same as ``step`` where the cohort was summed in groups: the median of the groups' means takes the place of
    the mean, of even numbers the mean of the two in the middle (Minsker, Bernoulli 2015). Counts are added up.
    """
    if len(sums) == 1:
        return step(plan, vector, *sums[0], round)
    everybody = [name for one in sums for name in one.contributors]
    level = plan.privacy.client_level
    parts = [divisor(plan, one.contributors) if level is None else float(plan.expected) for one in sums]
    total = np.sum([one.total for one in sums], axis=0)
    if not plan.surveys(round):
        middle = np.median([one.total[: plan.dimension] / part for one, part in zip(sums, parts, strict=True)], axis=0)
        total[: plan.dimension] = middle * (divisor(plan, everybody) if level is None else float(plan.expected))
    return step(plan, vector, total, everybody, round)


def step(
    plan: Plan,
    vector: NDArray[np.float32],
    total: NDArray[np.float64],
    contributors: Collection[str],
    round: int = 1,
) -> NDArray[np.float32]:
    """The global vector after a round, by the plan's strategy.

    ``vector`` is that of :mod:`securefl.global_state`; ``total``, the sum of weight times update, as long as an update.
    Weights are the plan's declared constants; the divisor is their sum over the contributors, taken in the plan's
    order. With client-level privacy updates are in clips and the divisor is the expected number of contributors,
    whoever they were (McMahan et al., ICLR 2018, section 3.2). Elementwise float64 + - * / and square roots, then one
    rounding to float32.
    """
    if plan.surveys(round):  # counts, and nothing else
        counted = slice(plan.dimension + len(global_state.extras(plan)), global_state.sent(plan))
        found = vector.copy()
        found[counted] = total[counted]
        return found
    parts, factor = divisor(plan, contributors), 1.0
    if plan.privacy.client_level is not None:
        factor, parts = global_state.clip(plan, vector), float(plan.expected)
    mean = factor * total[: plan.dimension] / parts
    start = vector[: plan.dimension].astype(np.float64)
    rate = plan.strategy.learning_rate * plan.strategy.schedule.factor(round, plan.rounds)
    direction, moments = _direction(plan.strategy, mean, global_state.moments(plan, vector).astype(np.float64))
    single = slice(plan.dimension, plan.dimension + len(global_state.extras(plan)))
    behind = _behind(plan, vector, total[single] / divisor(plan, contributors))
    counts = np.zeros(global_state.survey_length(plan))
    moved = [
        start + rate * direction,
        np.array(behind),
        counts,
        _control(plan, vector, mean, contributors, round),
        *moments,
    ]
    return np.concatenate(moved).astype(np.float32)


def _direction(
    strategy: Strategy, mean: NDArray[np.float64], moments: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Where the model goes, before the learning rate, and the moments after this round."""
    if not len(moments):
        return mean, []
    if not strategy.adaptive:  # fedavgm: Hsu et al. 2019, section 4.1
        velocity = strategy.momentum * moments[0] + mean
        return velocity, [velocity]
    first = strategy.momentum * moments[0] + (1 - strategy.momentum) * mean
    square, second = mean * mean, moments[1]
    match strategy.kind:  # Reddi et al., ICLR 2021, algorithm 2
        case "fedadagrad":
            second = second + square
        case "fedyogi":
            second = second - (1 - strategy.second) * square * np.sign(second - square)
        case _:
            second = strategy.second * second + (1 - strategy.second) * square
    return first / (np.sqrt(second) + strategy.adaptivity), [first, second]


def _control(
    plan: Plan, vector: NDArray[np.float32], mean: NDArray[np.float64], contributors: Collection[str], round: int
) -> NDArray[np.float64]:
    """The server's control variate after the round (SCAFFOLD, algorithm 1, line 17); empty where there is none.

    A client's c_i+ - c_i is -c - update / (steps * rate): a function of its update and of what all know, so that the
    mean of those needs nothing to be sent, and reveals nothing, beside the mean of the updates.
    """
    before = global_state.control(plan, vector).astype(np.float64)
    if not plan.strategy.controlled:
        return before
    share = divisor(plan, contributors) / divisor(plan, plan.clients)
    return before + share * (control_change(plan, before, mean, round))


def control_change(
    plan: Plan, control: NDArray[np.float64], update: NDArray[np.float64], round: int
) -> NDArray[np.float64]:
    """c_i+ - c_i of a client with this update (in the model's units), or their mean for the mean update: option II."""
    return -control - update / (plan.mechanism.steps * plan.optimizer.at(round, plan.rounds).learning_rate)


def divisor(plan: Plan, contributors: Collection[str]) -> float:
    """The contributors' weights together, added up in the plan's order; 0.0 of none."""
    there, parts = frozenset(contributors), 0.0
    for client, weight in zip(plan.clients, plan.weights, strict=True):
        if client in there:
            parts += weight
    return parts


def _behind(plan: Plan, model: NDArray[np.float32], means: NDArray[np.float64]) -> list[float]:
    """The numbers behind the parameters, after the round; ``means`` are those of what clients sent for them."""
    level, held_out = plan.privacy.client_level, plan.privacy.held_out
    found = dict(zip(global_state.extras(plan), map(float, means), strict=True))
    moved = {}
    if level is not None and level.adaptive is not None:
        clip = global_state.clip(plan, model)
        moved[global_state.CLIP] = _adapted(level.adaptive, level.clip, clip, found[global_state.CLIP])
    if held_out is not None:
        moved[global_state.ACCURACY] = min(max(found[global_state.ACCURACY], 0.0), 1.0)
        moved[global_state.LOSS] = min(max(found[global_state.LOSS], 0.0), 1.0) * held_out.loss_bound
    return [moved[name] for name in global_state.extras(plan)]


def _adapted(adaptive: AdaptiveClip, start: float, clip: float, mean: float) -> float:
    """The next clip: ``mean`` is that of +-1/2, plus for updates within the clip (Andrew et al. 2021, section 3)."""
    fraction = min(max(mean + 0.5, 0.0), 1.0)
    step = 1.0 - adaptive.rate * (fraction - adaptive.quantile) / 2.0**_SQUARINGS
    for _ in range(_SQUARINGS):
        step *= step
    return min(max(clip * step, start / global_state.FARTHEST), start * global_state.FARTHEST)
