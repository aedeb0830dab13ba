"""The largest whole number whose cost stays within a limit, where costs are slow to compute and rough ones are not."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

LEAST_NOISE = 0.01
MOST_NOISE = 1e4
# The numbers of four digits between them: 9000 in each power of ten.
CHOICES = 6 * 9000 + 1


def four_digits(choice: int) -> float:
    """Noise multipliers of four digits, falling: 1 is ``MOST_NOISE``, ``CHOICES`` is ``LEAST_NOISE``."""
    decade, digits = divmod(CHOICES - choice, 9000)
    return float(f"{1000 + digits}e{decade - 5}")


def largest_within(
    limit: float, end: int, rough: Callable[[int], float], finer: Sequence[Callable[[int], float]]
) -> int:
    """The largest n in 1..``end`` whose cost is at most ``limit``; 0 if that of 1 is above it.

    ``finer``: ever better figures of the cost; the last one decides, and is computed for n and n + 1 in any case.
    ``rough`` is called freely; the smoother its ratio to the others, the fewer calls they need. None may fall with n.
    """
    near = max(1, bisect_right(range(1, end + 1), limit, key=rough))
    for figure in finer[:-1]:
        near = _closed_in(limit, end, rough, figure, near, _TRIES_TO_GUESS).near
    known = _closed_in(limit, end, rough, finer[-1], near, _TRIES_TO_DECIDE)
    return largest(lambda n: finer[-1](n) <= limit, known.near, known.low, known.high)


# A guess need not be exact. A decision is reached in three or four steps where costs are smooth, else by bisection.
_TRIES_TO_GUESS = 3
_TRIES_TO_DECIDE = 8


class _Bracket(NamedTuple):
    """``low`` fits, ``high`` does not, and the answer is guessed to be ``near``."""

    low: int
    high: int
    near: int


def _closed_in(
    limit: float, end: int, rough: Callable[[int], float], figure: Callable[[int], float], near: int, tries: int
) -> _Bracket:
    low, high = 0, end + 1
    ratios: list[tuple[float, float]] = []
    while high - low > 1 and len(ratios) < tries:
        probe = min(max(near, low + 1), high - 1)
        cost, guessed = figure(probe), rough(probe)
        low, high = (probe, high) if cost <= limit else (low, probe)
        if not (0 < cost < math.inf and 0 < guessed < math.inf):
            break
        ratios.append((math.log(probe), math.log(cost / guessed)))
        near = _crossing(limit, end, rough, ratios)
    return _Bracket(low, high, near)


def _crossing(limit: float, end: int, rough: Callable[[int], float], ratios: list[tuple[float, float]]) -> int:
    """Secant: where the cost crosses ``limit`` if its ratio to ``rough`` is a power of n, as in the last two ratios."""
    (before, other), (where, ratio) = (ratios * 2)[-2:]
    power = (ratio - other) / (where - before) if where != before else 0.0

    def cost(n: int) -> float:
        guessed = rough(n)
        return math.log(guessed) + ratio + power * (math.log(n) - where) if guessed > 0 else -math.inf

    return max(1, bisect_right(range(1, end + 1), math.log(limit), key=cost))


def largest(fits: Callable[[int], bool], near: int, low: int, high: int) -> int:
    """The largest n with ``fits(n)``, which is true up to there and false from there on; few calls if ``near`` it.

    Known before: that ``low`` fits, and that ``high`` does not.
    """
    probe, step = min(max(near, low + 1), high - 1), 1
    while low < probe < high:
        if fits(probe):
            low, probe = probe, probe + step
        else:
            high, probe = probe, probe - step
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
