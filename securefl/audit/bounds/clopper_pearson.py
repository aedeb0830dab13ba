"""A bound from the two error rates of one test (Nasr et al., USENIX Security 2023), for a family of trade-offs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from securefl.audit.bounds.bound import CONFIDENCE, Bound, checked_delta, level
from securefl.audit.bounds.families import Family, Gaussians, TradeOff, largest_refuted_epsilon
from securefl.audit.bounds.scores import Scores, checked
from securefl.errors import BadInput

METHOD = "Clopper-Pearson"
RATES = (0.2,)
"""Within a tenth of the best rate for epsilons from 4 to 12."""


def lower_bound(
    scores_in: ArrayLike,
    scores_out: ArrayLike,
    delta: float,
    confidence: float = CONFIDENCE,
    family: Family | None = None,
    rates: Sequence[float] = RATES,
) -> Bound:
    """Epsilon at ``delta``, from the scores of canaries that were in (m,) and out (n,); 0.0 where one is empty.

    Guarantee: a lower bound with ``confidence``; assumes independent scores, alike within each array, and that the
    trade-off function is in ``family`` (``Gaussians`` unless given). ``rates``: false positive rates aimed at, fixed
    before scores were seen; of several, the best counts, each at its share of the level. Raises ``BadInput`` on NaN.
    """
    share, delta, family = level(confidence), checked_delta(delta), family or Gaussians()
    inside, outside = checked(scores_in, "scores in"), checked(scores_out, "scores out")
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise BadInput(f"rates are {rates}: aim at one or more false positive rates between 0 and 1")
    epsilon = 0.0
    if len(inside) and len(outside):
        limits = [error_limits(inside, outside, rate, share / len(rates)) for rate in rates]

        def refuted(tradeoff: TradeOff) -> bool:
            return any(tradeoff(positives) > negatives for positives, negatives in limits)

        epsilon = largest_refuted_epsilon(family, refuted, delta)
    assumes = f"scores are independent and {family.assumes}"
    return Bound(METHOD, epsilon, delta, confidence, assumes, "bound", "Nasr et al. 2023")


def error_limits(scores_in: Scores, scores_out: Scores, rate: float, share: float) -> tuple[float, float]:
    """Upper limits, both holding but for a probability of ``share``, on false positive and false negative rate.

    The test says "in" above the score that ``rate`` of those out exceed. A threshold that is a fixed rank among them
    has a false positive rate of a known beta distribution, whatever theirs is: Clopper-Pearson's limit of that rank is
    exact. It knows nothing of those in, whose errors are binomial. So both use all scores, and nothing is split off.
    """
    above = int(rate * len(scores_out))
    threshold = np.sort(scores_out)[len(scores_out) - 1 - above]
    missed = int(np.sum(scores_in <= threshold))
    return upper_limit(above, len(scores_out), share / 2), upper_limit(missed, len(scores_in), share / 2)


def upper_limit(count: int, trials: int, share: float) -> float:
    """Clopper and Pearson's one-sided upper limit of a probability: too low in at most ``share`` of all cases."""
    return 1.0 if count >= trials else float(betaincinv(count + 1, trials - count, 1 - share))
