"""Epsilon of everything that was charged: the only door to ``dp_accounting``.

The privacy loss distribution (PLD; Koskela et al., AISTATS 2020; Doroshenko et al., PoPETs 2022) decides; its Renyi
accountant (Mironov et al., 2019) must not lie below it and is checked at run time. Both give upper bounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from securefl.errors import AccountingMismatch, BadInput
from securefl.privacy.mechanism import DPSGD, Budget, Mechanism

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

# dp_accounting's own default grid, so that anyone who recomputes a ledger with it gets the same figure.
_FINE = 1e-4
_COARSE = 1e-3
# The grid widens tenfold with each power of ten of epsilon above this: memory stays bounded, the result an upper bound.
_FINE_UP_TO = 100.0
# What protects nobody is reported as infinite instead of computed at length: a Renyi bound above this, or less noise
# than this in a step (epsilon above 4000 without sampling).
_HOPELESS = 1e5
_LEAST_NOISE = 0.01
# Integer orders: for fractional ones the series of the sampled Gaussian need not converge.
_ORDERS = (*range(2, 65), 96, 128, 192, 256, 384, 512, 1024)
# Where a search for more rounds stops: nobody trains longer, and the bisection stays short.
MOST_ROUNDS = 1_000_000

# (noise multiplier, sampling rate, steps): the clip is not in it, since noise is measured in clips.
_Part = tuple[float, float, int]
_Parts = tuple[_Part, ...]


def epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Epsilon of the composition of all ``mechanisms`` at ``delta``; 0.0 of none, ``inf`` where noise is negligible.

    Guarantee: an upper bound, record level, add-or-remove-one, for everyone who sees all outputs. A round may depend on
    the outputs before it, its noise, rate and steps may not; assumes sampling and noise as ``DPSGD`` describes them.
    Raises ``BadInput`` on plain SGD, which has no epsilon, and on a delta outside (0, 1).
    """
    return _epsilon(_merged(mechanisms), _checked(delta))


def cross_check(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The Renyi accountant's epsilon, after checking that the PLD's does not exceed it; ``epsilon`` runs this too.

    Raises ``AccountingMismatch`` if it does by more than the PLD's grid explains.
    """
    parts = _merged(mechanisms)
    _epsilon(parts, _checked(delta))
    return _renyi_epsilon(parts, delta)


def affordable_rounds(mechanism: Mechanism, budget: Budget, spent: Iterable[Mechanism] = ()) -> int:
    """The largest number of further rounds of ``mechanism`` that ``budget`` covers after ``spent``.

    At most ``MOST_ROUNDS``. Raises ``BadInput`` on plain SGD.
    """
    ((noise, rate, steps),) = _merged([mechanism])
    before = _merged(spent)

    def spending(rounds: int, grid: float) -> float:
        return _epsilon(_combined((*before, (noise, rate, steps * rounds))), budget.delta, grid)

    guess = _largest(lambda rounds: spending(rounds, _COARSE) <= budget.epsilon, 1)
    return _largest(lambda rounds: spending(rounds, _FINE) <= budget.epsilon, max(guess, 1))


def _largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest n in 0..MOST_ROUNDS with ``fits(n)``, for a condition that only turns false; fast near ``start``."""
    low, high, step = 0, MOST_ROUNDS + 1, 1
    probe = start
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


def _merged(mechanisms: Iterable[Mechanism]) -> _Parts:
    parts: list[_Part] = []
    for mechanism in mechanisms:
        if not isinstance(mechanism, DPSGD):
            raise BadInput("plain SGD has no epsilon: no budget covers it; train with DPSGD or label it as not private")
        parts.append((mechanism.noise_multiplier, mechanism.sampling_rate, mechanism.steps))
    return _combined(parts)


def _combined(parts: Iterable[_Part]) -> _Parts:
    """Steps with equal noise and rate counted together; composition does not depend on the order."""
    steps: Counter[tuple[float, float]] = Counter()
    for noise, rate, count in parts:
        steps[noise, rate] += count
    return tuple(sorted((noise, rate, count) for (noise, rate), count in steps.items() if count))


def _checked(delta: float) -> float:
    if not 0 < delta < 1:
        raise BadInput(f"delta is {delta}: it must lie between 0 and 1, and well below 1 / number of records")
    return delta


@lru_cache(maxsize=4096)
def _epsilon(parts: _Parts, delta: float, grid: float = _FINE) -> float:
    if not parts:
        return 0.0
    ceiling = _renyi_epsilon(parts, delta)
    if ceiling > _HOPELESS:
        return math.inf
    grid *= 10 ** max(0, math.ceil(math.log10(ceiling / _FINE_UP_TO))) if ceiling > 0 else 1
    total, *others = (_composed(noise, rate, steps, grid) for noise, rate, steps in parts)
    for other in others:
        total = total.compose(other)
    result = float(total.get_epsilon_for_delta(delta))
    if result > ceiling + _slack(parts, delta, grid):
        raise AccountingMismatch(
            f"the PLD accountant says epsilon {result:.6g} and the Renyi accountant at most {ceiling:.6g}, "
            f"which cannot both hold: release nothing, and check the installed dp_accounting"
        )
    return result


def _slack(parts: _Parts, delta: float, grid: float) -> float:
    """How far the PLD's grid can lift its epsilon.

    A loss is split onto its two neighbours on the grid, which adds at most grid^2/4 to its variance; over all steps a
    deviation of grid/2 * sqrt(steps), of which sqrt(2 ln(1/delta)) count at ``delta`` (Gaussian tail).
    """
    steps = sum(part[2] for part in parts)
    return grid + grid / 2 * math.sqrt(steps) * math.sqrt(2 * math.log(1 / delta))


@lru_cache(maxsize=32)
def _composed(noise: float, rate: float, steps: int, grid: float) -> PrivacyLossDistribution:
    if rate == 1:  # unsampled Gaussians compose to one Gaussian, exactly
        return _step(noise / math.sqrt(steps), rate, grid)
    return _step(noise, rate, grid).self_compose(steps)


@lru_cache(maxsize=32)
def _step(noise: float, rate: float, grid: float) -> PrivacyLossDistribution:
    from dp_accounting.pld import privacy_loss_distribution

    # Its default neighbouring relation is add-or-remove-one: both directions are kept and the worse one counts.
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid
    )


@lru_cache(maxsize=4096)
def _renyi_epsilon(parts: _Parts, delta: float) -> float:
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    if not parts:
        return 0.0
    if min(noise for noise, _, _ in parts) < _LEAST_NOISE:
        return math.inf
    accountant = RdpAccountant(_ORDERS, NeighboringRelation.ADD_OR_REMOVE_ONE)
    for noise, rate, steps in parts:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return float(accountant.get_epsilon(delta))
