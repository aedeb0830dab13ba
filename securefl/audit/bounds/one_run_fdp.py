"""A bound from one run for mechanisms of a known family (Mahloujifar, Melis, Chaudhuri, ICML 2025)."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from securefl.audit.bounds.bound import CONFIDENCE, Bound, checked_delta, level
from securefl.audit.bounds.families import Family, Gaussians, TradeOff, largest_refuted_epsilon
from securefl.audit.bounds.scores import Guesses, a_fifth, checked, checked_coins, checked_guesses, correct

METHOD = "f-DP one-run"


def lower_bound(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    confidence: float = CONFIDENCE,
    family: Family | None = None,
    guesses: Sequence[Guesses] | None = None,
) -> Bound:
    """Epsilon at ``delta``, from the scores (m,) of canaries and whether each was ``included`` (m,).

    Guarantee: a lower bound with ``confidence``, however scores depend on each other; assumes independent fair coins,
    that the mechanism's trade-off function is in ``family`` (``Gaussians`` unless given), and that ``guesses``
    (``a_fifth`` unless given) were fixed before scores were seen. Of several, the best counts, each at its share of the
    level. Raises ``BadInput`` on NaN or arrays that do not match.
    """
    share, delta, family = level(confidence), checked_delta(delta), family or Gaussians()
    found = checked(scores, "scores")
    coins = checked_coins(included, len(found))
    epsilon = 0.0
    if len(found):
        made = checked_guesses(guesses or a_fifth(len(found)), len(found))
        counts = [(sum(one), correct(found, coins, one)) for one in made]

        def refuted(tradeoff: TradeOff) -> bool:
            return any(refutes(tradeoff, len(found), *count, share / len(made)) for count in counts)

        epsilon = largest_refuted_epsilon(family, refuted, delta)
    assumes = f"coins were fair and {family.assumes}"
    return Bound(METHOD, epsilon, delta, confidence, assumes, "bound", "Mahloujifar et al. 2024")


def refutes(tradeoff: TradeOff, canaries: int, guesses: int, right: int, share: float) -> bool:
    """Whether ``right`` of at most ``guesses`` are too many, at the level ``share``, for a mechanism of ``tradeoff``.

    Their recursive algorithm: were that number reached with a probability of ``share``, the trade-off function would
    force so many right guesses (``hits``) and wrong ones (``misses``) that together they are more than all guesses.
    Both are in units of canaries.
    """
    hits, misses = share * right / canaries, share * (guesses - right) / canaries
    for others in range(right - 1, -1, -1):
        forced = max(misses, tradeoff(1 - hits))
        if forced == misses:
            break  # nothing changes from here on
        hits = min(1.0, hits + others / (guesses - others) * (forced - misses))
        misses = forced
    return hits + misses > guesses / canaries
