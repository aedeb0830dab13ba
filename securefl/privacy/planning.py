"""What a budget still covers, and how much noise a run needs: the accountant's questions, asked backwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from securefl.errors import BadInput
from securefl.privacy import renyi
from securefl.privacy.accountant import COARSE, FINE, FINE_UP_TO, MOST_EPSILON, SAME, decided, slack
from securefl.privacy.mechanism import Budget, Mechanism, Unit
from securefl.privacy.search import CHOICES, LEAST_NOISE, MOST_NOISE, four_digits, largest, largest_within
from securefl.privacy.totals import Total, charged, gaussians, least_noise, single, times, together

# Where a search for more rounds stops: nobody trains longer, and the bisection stays short.
MOST_ROUNDS = 1_000_000


def affordable_rounds(
    round_costs: Sequence[Mechanism], budget: Budget, spent: Iterable[Mechanism] = (), unit: Unit = "record"
) -> int:
    """How many further rounds, each releasing all of ``round_costs``, ``budget`` covers after ``spent``.

    At most ``MOST_ROUNDS``, with equal rounds in ``spent`` counted in. Solved once for a kind of round: further calls,
    as rounds are spent, take no time. Raises ``BadInput`` on what has no epsilon for ``unit``.
    """
    each, before = charged(round_costs, unit), charged(spent, unit)
    counts = {single(part): part.count for part in before}
    equal = min((counts.get(single(part), 0) // part.count for part in each), default=0)
    others = together((*before, *times(each, -equal)))
    return max(0, _affordable(others, each, budget) - equal)


def surely_affordable(
    round_costs: Sequence[Mechanism], budget: Budget, spent: Iterable[Mechanism] = (), unit: Unit = "record"
) -> int:
    """A number of further rounds that ``budget`` covers for certain, in milliseconds; ``affordable_rounds`` is no less.

    By the Renyi bound and what the PLD's grid may add to it: ``epsilon`` of so many rounds is within the budget, unless
    it raises ``AccountingMismatch``. Raises ``BadInput`` on what has no epsilon for ``unit``.
    """
    each, before = charged(round_costs, unit), charged(spent, unit)
    if least_noise((*each, *before)) < LEAST_NOISE:
        return 0

    def fits(rounds: int) -> bool:
        total = together((*before, *times(each, rounds)))
        bound = renyi.epsilon(total, budget.delta) * (1 + SAME)  # ours: it needs no package to be imported first
        steps = sum(one.count for one in gaussians(total))
        return bound <= FINE_UP_TO and bound + slack(steps, budget.delta, FINE) <= budget.epsilon

    return largest(fits, 1, 0, MOST_ROUNDS + 1)


def calibrate(
    at: Callable[[float], Sequence[Mechanism]],
    rounds: int,
    budget: Budget,
    spent: Iterable[Mechanism] = (),
    unit: Unit = "record",
) -> float:
    """The least noise multiplier, of four digits, with which ``rounds`` rounds after ``spent`` stay within ``budget``.

    ``at(noise_multiplier)``: what one round releases, for any multiplier from 0.01 to 10,000; no noise in it may fall
    as the multiplier grows. The epsilon of the result is within the budget, that of the next lower number is not.
    Raises ``BadInput`` where no multiplier fits.
    """
    if rounds < 1:
        raise BadInput(f"rounds is {rounds}: it must be at least 1")
    before = charged(spent, unit)
    already = decided(before, budget.delta)
    if already > budget.epsilon:
        raise BadInput(f"epsilon {already:.4g} is spent already, more than the {budget.epsilon:g} of the budget")

    def composed(choice: int) -> Total:
        return together((*before, *times(charged(at(four_digits(choice)), unit), rounds)))

    choice = _largest(composed, budget, CHOICES)
    if choice == 0:
        raise BadInput(
            f"no noise multiplier up to {MOST_NOISE:g} keeps {rounds} rounds within epsilon {budget.epsilon:g}, of "
            f"which {already:.4g} is spent: ask for fewer rounds or a larger budget, or give other releases more noise"
        )
    return four_digits(choice)


@lru_cache(maxsize=256)
def _affordable(before: Total, each: Total, budget: Budget) -> int:
    return _largest(lambda rounds: together((*before, *times(each, rounds))), budget, MOST_ROUNDS)


def _largest(composed: Callable[[int], Total], budget: Budget, end: int) -> int:
    """The largest n in 1..``end`` for which ``composed(n)``, which grows with n, stays within ``budget``; else 0."""

    def spent(n: int, grid: float = FINE) -> float:
        return decided(composed(n), budget.delta, grid)

    def rough(n: int) -> float:
        return renyi.epsilon(composed(n), budget.delta)

    def near(n: int) -> float:
        # What a grid adds falls with its square: two coarse ones tell what no grid would say.
        one, two = spent(n, COARSE), spent(n, 2 * COARSE)
        return one - (two - one) / 3

    # Above that every figure is infinite, and where they end is a long way to search.
    return largest_within(min(budget.epsilon, MOST_EPSILON), end, rough, [near, spent])
