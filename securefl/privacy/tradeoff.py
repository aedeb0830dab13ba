"""The trade-off function of composed sampled Gaussians, and their epsilon from below, by privacy loss distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from securefl.errors import BadInput
from securefl.privacy import accountant
from securefl.privacy.mechanism import LEAST_DELTA, SampledGaussian

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

# Points of the profile that a curve is made from, and the delta where it ends: error rates are seldom below 1e-3.
_POINTS = 128
_LAST_DELTA = 1e-9
# The grid of a curve: coarser than for an epsilon, since it is computed for many strengths and error rates are coarse.
_COARSE = 5e-3
# The largest epsilon that accountants give.
_MOST_EPSILON = 700.0
# Steps after which the grid tells; and what rounding a step and cutting tails off may have taken from delta.
_MOST_STEPS = 200_000
_ROUNDING_PER_STEP = 2.0**-53
_TAILS = 2e-15


@lru_cache(maxsize=256)
def curve(cost: SampledGaussian) -> Callable[[float], float]:
    """The least false negative rate of telling in from out, at a false positive rate in 0..1, whichever is called so.

    Never above the true one: the envelope of what upper bounds on delta allow at some epsilons (Dong, Roth, Su 2022,
    proposition 2.12), for add-or-remove-one, the worse of both.
    """
    cost = _merged(cost)
    loss = _loss(cost, _grid(cost, _COARSE))
    with np.errstate(over="ignore"):
        most = min(float(loss.get_epsilon_for_delta(_LAST_DELTA)), _MOST_EPSILON)
        epsilons = np.linspace(0, most, _POINTS)
        deltas = np.asarray(loss.get_delta_for_epsilon(epsilons), dtype=np.float64)
    steep, flat = np.exp(epsilons), np.exp(-epsilons)

    def least(false_positives: float) -> float:
        left, right = 1 - deltas - steep * false_positives, flat * (1 - deltas - false_positives)
        return max(0.0, float(left.max()), float(right.max()))

    return least


@lru_cache(maxsize=256)
def least_epsilon(cost: SampledGaussian, delta: float) -> float:
    """A lower bound on the epsilon of ``cost`` at ``delta``: the PLD's, less what its grid may have added.

    At most 700: above, accountants give no figure. Raises ``BadInput`` on a delta below 1e-12 or from 1, and on more
    than 200,000 steps, of which the PLD is not known well enough.
    """
    if not LEAST_DELTA <= delta < 1:
        raise BadInput(f"delta is {delta}: it must be at least {LEAST_DELTA:g} and below 1")
    if cost.count > _MOST_STEPS:
        raise BadInput(f"{cost.count} steps are too many for a lower bound on epsilon: audit at most {_MOST_STEPS}")
    cost = _merged(cost)
    # So that what the grid may add stays the same up to ten thousand steps.
    grid = _grid(cost, max(accountant.FINE, accountant.COARSE / max(1.0, math.sqrt(cost.count / 100))))
    with np.errstate(over="ignore"):
        figure = float(_loss(cost, grid).get_epsilon_for_delta(delta + _ROUNDING_PER_STEP * cost.count + _TAILS))
    return max(0.0, min(figure, _MOST_EPSILON) - accountant.slack(cost.count, delta, grid))


def _merged(cost: SampledGaussian) -> SampledGaussian:
    """Gaussians that are not sampled as one, which they are exactly."""
    return cost if cost.sampling_rate < 1 else SampledGaussian(cost.noise_multiplier / math.sqrt(cost.count), 1.0, 1)


def _grid(cost: SampledGaussian, grid: float) -> float:
    """``grid``, wider where the losses of a step are: with strong canaries they are (1 / sigma)^2 and more."""
    return grid * max(1.0, cost.noise_multiplier**-2)


def _loss(cost: SampledGaussian, grid: float) -> PrivacyLossDistribution:
    return accountant.composed(cost.noise_multiplier, cost.sampling_rate, cost.count, grid)
