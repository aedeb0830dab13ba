"""Gaussian differential privacy (Dong, Roth, Su, JRSS-B 2022): N(0, 1) against N(mu, 1), in both directions alike."""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.optimize import brentq
from scipy.special import log_ndtr

_STANDARD = NormalDist()
# Above it no audit of a few thousand canaries tells shifts apart, and epsilon is above 700.
MOST_SHIFT = 40.0


def tradeoff(shift: float, false_positives: float) -> float:
    """The least false negative rate at a false positive rate, both in 0..1, of ``shift``-GDP (equation 6)."""
    if not 0 < false_positives < 1:
        return 1.0 if false_positives <= 0 else 0.0
    # The normal distribution function, exact in the lower tail too, where NormalDist.cdf cancels.
    return math.erfc((_STANDARD.inv_cdf(false_positives) + shift) / math.sqrt(2)) / 2


def shift(false_positives: float, false_negatives: float) -> float:
    """The mu whose trade-off function passes through two error rates; 0.0 if they are no better than chance."""
    if false_positives + false_negatives >= 1:
        return 0.0
    if min(false_positives, false_negatives) <= 0:
        return math.inf
    return -_STANDARD.inv_cdf(false_positives) - _STANDARD.inv_cdf(false_negatives)


def epsilon(shift: float, delta: float) -> float:
    """The epsilon of ``shift``-GDP at ``delta``, exactly (corollary 2.13); 0.0 where delta alone covers it."""
    if math.isinf(shift):
        return math.inf
    if shift <= 0 or _log_delta(0.0, shift) <= math.log(delta):
        return 0.0
    # At this epsilon the first term alone is below delta, by the Gaussian tail exp(-x^2 / 2).
    most = shift * (shift / 2 + math.sqrt(-2 * math.log(delta)))
    return float(brentq(lambda eps: _log_delta(eps, shift) - math.log(delta), 0.0, most, xtol=1e-9))


def _log_delta(eps: float, shift: float) -> float:
    first = float(log_ndtr(shift / 2 - eps / shift))
    second = eps + float(log_ndtr(-shift / 2 - eps / shift))
    # Rounding may leave the second, which is never larger, a little above the first.
    return first + math.log1p(-math.exp(min(second - first, -1e-300))) if second < first else -math.inf
