"""A bound from the difference of two means: what is most of all known of Gaussians, and of nothing else."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import nctdtr

from securefl.audit.bounds import gdp
from securefl.audit.bounds.bound import CONFIDENCE, Bound, checked_delta, level
from securefl.audit.bounds.refutation import largest_refuted
from securefl.audit.bounds.scores import Scores, checked

METHOD = "Gaussian mean shift"
ASSUMES = "scores are independent Gaussians of one variance (exact at q = 1 only)"


def lower_bound(scores_in: ArrayLike, scores_out: ArrayLike, delta: float, confidence: float = CONFIDENCE) -> Bound:
    """Epsilon at ``delta``, from the scores of canaries that were in (m,) and out (n,); 0.0 where one is empty.

    Guarantee: a lower bound with ``confidence``, exact where scores are independent, those in N(a + mu s, s^2) and
    those out N(a, s^2), with a and s unknown; without that, none: sampling (q < 1) voids it. Raises
    ``BadInput`` on NaN.
    """
    share = level(confidence)
    inside, outside = checked(scores_in, "scores in"), checked(scores_out, "scores out")
    epsilon = gdp.epsilon(shift_limit(inside, outside, share), checked_delta(delta))
    return Bound(METHOD, epsilon, delta, confidence, ASSUMES, "bound", "noncentral t; Dong et al. 2022, corollary 2.13")


def shift_limit(scores_in: Scores, scores_out: Scores, share: float) -> float:
    """A lower limit on mu, too high in a fraction ``share`` of all cases; 0.0 where nothing is shown.

    Student's t of the two samples is noncentral t with m + n - 2 degrees of freedom, shifted by mu / sqrt(1/m + 1/n).
    ``inf`` where the scores do not vary at all and yet differ: there is no noise.
    """
    freedom = len(scores_in) + len(scores_out) - 2
    if freedom < 1 or not len(scores_in) or not len(scores_out):
        return 0.0
    difference, variance = scores_in.mean() - scores_out.mean(), _pooled(scores_in, scores_out)
    if difference <= 0 or variance == 0:
        return math.inf if difference > 0 else 0.0
    unit = math.sqrt(1 / len(scores_in) + 1 / len(scores_out))
    # Farther out the distribution function is not computed reliably; to take t for less lowers the bound.
    student = min(float(difference / (unit * math.sqrt(variance))), _MOST_STUDENT)

    def refuted(shift: float) -> bool:
        return bool(nctdtr(freedom, shift / unit, student) >= 1 - share)

    return largest_refuted(refuted, _LEAST, gdp.MOST_SHIFT, _RESOLUTION)


_MOST_STUDENT = 1e4
_LEAST, _RESOLUTION = 1e-4, 1e-6


def _pooled(scores_in: Scores, scores_out: Scores) -> float:
    squares = (np.square(one - one.mean()).sum() for one in (scores_in, scores_out))
    return float(sum(squares)) / (len(scores_in) + len(scores_out) - 2)
