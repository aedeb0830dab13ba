"""An estimate of epsilon for federated learning, without a level (Andrew et al., ICLR 2024)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import norm

from securefl.audit.bounds.bound import Bound, checked_delta
from securefl.audit.bounds.scores import Scores, checked

METHOD = "one-shot estimator"
ASSUMES = "the cosines are Gaussian"
SOURCE = "Andrew et al. 2023"


def estimate(cosines_in: ArrayLike, cosines_out: ArrayLike, delta: float) -> Bound:
    """Epsilon at ``delta``, about: from the cosine of each canary and the update that clients released.

    ``cosines_in`` (m,): of canary clients, random directions, that took part; ``cosines_out`` (n,): of directions that
    did not. A Gaussian is fitted to each, and epsilon is that of telling the two apart, the worse way round. 0.0 where
    one has fewer than two, ``inf`` where nothing varies. Guarantee: none; fitted deviations differ by chance, which
    lifts it: to 10.5 in the median for a truth of 9.6 and 500 canaries on either side. Raises ``BadInput`` on NaN.
    """
    inside, outside = checked(cosines_in, "cosines in"), checked(cosines_out, "cosines out")
    epsilon = _between(inside, outside, checked_delta(delta)) if min(len(inside), len(outside)) > 1 else 0.0
    return Bound(METHOD, epsilon, delta, None, ASSUMES, "estimate", SOURCE)


def _between(inside: Scores, outside: Scores, delta: float) -> float:
    deviation_in, deviation_out = float(inside.std(ddof=1)), float(outside.std(ddof=1))
    difference = float(inside.mean() - outside.mean())
    if not deviation_in or not deviation_out:
        return 0.0 if deviation_in == deviation_out and not difference else np.inf
    ratio = deviation_in / deviation_out
    return max(
        _one_way(difference / deviation_out, ratio, delta),
        _one_way(-difference / deviation_in, 1 / ratio, delta),
    )


# Twelve deviations, beyond which there is less than 1e-32, in steps that leave delta exact to 1e-4 of itself.
_POINTS = np.linspace(-12, 12, 2401)
_WEIGHTS = norm.pdf(_POINTS) * (_POINTS[1] - _POINTS[0])


def _one_way(shift: float, deviation: float, delta: float) -> float:
    """Epsilon of N(``shift``, ``deviation``^2) against N(0, 1), one way: where their hockey-stick is ``delta``."""
    losses = np.square(shift + deviation * _POINTS) / 2 - np.square(_POINTS) / 2 - np.log(deviation)

    def excess(epsilon: float) -> float:
        return float(-np.expm1(np.minimum(epsilon - losses, 0)) @ _WEIGHTS) - delta

    return float(brentq(excess, 0.0, losses.max())) if excess(0.0) > 0 else 0.0
