"""A bound from one run that assumes nothing but (epsilon, delta)-DP (Steinke, Nasr, Jagielski, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc, expit

from securefl.audit.bounds.bound import CONFIDENCE, Bound, checked_delta, level
from securefl.audit.bounds.refutation import largest_refuted
from securefl.audit.bounds.scores import Guesses, a_fifth, checked, checked_coins, checked_guesses, correct

METHOD = "one-run"


def lower_bound(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    confidence: float = CONFIDENCE,
    guesses: Sequence[Guesses] | None = None,
) -> Bound:
    """Epsilon at ``delta``, from the scores (m,) of canaries and whether each was ``included`` (m,).

    Guarantee: a lower bound with ``confidence`` for every mechanism, however scores depend on each other; assumes
    independent fair coins, and that ``guesses`` (``a_fifth`` unless given) were fixed before scores were seen. Of
    several, the best counts, each at its share of the level. Raises ``BadInput`` on NaN or arrays that do not match.
    """
    share, delta = level(confidence), checked_delta(delta)
    found = checked(scores, "scores")
    coins = checked_coins(included, len(found))
    epsilon = 0.0
    if len(found):
        made = checked_guesses(guesses or a_fifth(len(found)), len(found))
        counts = [(sum(one), correct(found, coins, one)) for one in made]
        epsilon = max(epsilon_of(len(found), *count, delta, share / len(made)) for count in counts)
    return Bound(METHOD, epsilon, delta, confidence, "coins were fair", "bound", "Steinke et al. 2023, theorem 5.2")


def epsilon_of(canaries: int, guesses: int, right: int, delta: float, share: float) -> float:
    """The largest epsilon that ``right`` of ``guesses`` refute at the level ``share``; 0.0 if none."""
    # The p-value grows with epsilon only where 2 m delta is at most 1, by its derivative; above there is no bound.
    if 2 * canaries * delta > 1 or p_value(canaries, guesses, right, 0.0, delta) > share:
        return 0.0
    return largest_refuted(
        lambda epsilon: p_value(canaries, guesses, right, epsilon, delta) <= share, _LEAST, _MOST, _RESOLUTION
    )


# With 2^30 guesses, all of them right, epsilon is below 21.
_LEAST, _MOST, _RESOLUTION = 1e-6, 30.0, 1e-6


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """At most how probable ``right`` or more of at most ``guesses`` are, if the mechanism is (epsilon, delta)-DP.

    Theorem 5.2: with W binomial(guesses, e^epsilon / (1 + e^epsilon)), P[W >= right] and for delta 2 m delta times the
    largest of P[right - i <= W < right] / i.
    """
    if right <= 0:
        return 1.0
    hit = expit(epsilon)
    beyond = float(bdtrc(right - 1, guesses, hit))
    fewer = np.arange(1, right + 1)
    # Of i = right the lower end is 0, and bdtrc(-1) is 1 only by its limit.
    at_least = np.append(bdtrc(right - fewer[:-1] - 1, guesses, hit), 1.0)
    return min(1.0, beyond + 2 * canaries * delta * float(np.max((at_least - beyond) / fewer)))
