"""From a sum of updates to the next model: pure and deterministic, so that all who take it agree to the bit."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl import global_state
from securefl.plan import AdaptiveClip, Plan

# Squarings with which exp is approached: below the rate's own arbitrariness, and the same bits everywhere.
_SQUARINGS: Final = 20


def federated_average(
    plan: Plan, model: NDArray[np.float32], total: NDArray[np.float64], contributors: Collection[str]
) -> NDArray[np.float32]:
    """The model plus the weighted mean of the contributors' updates (McMahan et al., AISTATS 2017, algorithm 1).

    ``model`` and ``total``, the sum of weight times update, are vectors of :mod:`securefl.global_state`. Weights are
    the plan's declared constants; the divisor is their sum over the contributors, taken in the plan's order. With
    client-level privacy updates are in clips and the divisor is the number of the plan's clients, whoever contributed
    (McMahan et al., ICLR 2018, section 3.2). Elementwise float64 + - * /, then one rounding to float32.
    """
    parts = divisor(plan, contributors)
    factor = 1.0
    if plan.privacy.client_level is not None:
        factor, parts = global_state.clip(plan, model), float(len(plan.clients))
    own = slice(plan.dimension)
    moved = (model[own].astype(np.float64) + factor * total[own] / parts).astype(np.float32)
    behind = _behind(plan, model, total[plan.dimension :] / divisor(plan, contributors))
    return np.concatenate([moved, np.array(behind, np.float32)])


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
