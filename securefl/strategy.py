"""From a sum of updates to the next model: pure and deterministic, so that all who take it agree to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securefl.plan import Plan


def federated_average(
    plan: Plan, model: NDArray[np.float32], total: NDArray[np.float64], contributors: Sequence[str]
) -> NDArray[np.float32]:
    """The model plus the weighted mean of the contributors' updates (McMahan et al., AISTATS 2017, algorithm 1).

    ``total`` is the sum of weight times update. Weights are the plan's declared constants; the divisor is their sum
    over the contributors, taken in the plan's order. Elementwise float64 + and /, then one rounding to float32.
    """
    divisor = 0.0
    for client, weight in zip(plan.clients, plan.weights, strict=True):
        if client in contributors:
            divisor += weight
    return (model.astype(np.float64) + total / divisor).astype(np.float32)
