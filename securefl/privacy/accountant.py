"""Epsilon of everything that was charged: the only door to ``dp_accounting``.

Of sampled Gaussians the privacy loss distribution (PLD; Koskela et al., AISTATS 2020; Doroshenko et al., PoPETs 2022)
decides, and the Renyi accountant (RDP; Mironov et al., 2019) must not lie below it. Skellam sums have an RDP curve
only: what contains them is composed in RDP, and the independent ``renyi`` must agree. All figures are upper bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np

from securefl.errors import AccountingMismatch, BadInput
from securefl.privacy import renyi
from securefl.privacy.mechanism import Cost, Mechanism, SampledGaussian, SkellamSum, Unit
from securefl.privacy.search import LEAST_NOISE
from securefl.privacy.totals import Total, charged, gaussians, least_noise, single, skellams

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

# dp_accounting's own default grid, so that anyone who recomputes a ledger with it gets the same figure.
FINE = 1e-4
COARSE = 1e-3
FINE_UP_TO = 100.0
"""The grid widens tenfold with each power of ten of the Renyi bound above this: memory stays bounded."""
# What protects nobody is infinite: above 700 the PLD's exponentials overflow. It is not computed at length with
# less noise than LEAST_NOISE in a step, or a Renyi bound above this: many times what the PLD says, where that is 700.
MOST_EPSILON = 700.0
_HOPELESS = 1e5
_LEAST_DELTA = 1e-12
# A composed PLD is wrong by the rounding of its Fourier transform, 1e-17 of probability a step where we measured; this
# much is taken off delta. Where that is more than a tenth of it, or steps so many that the grid tells, RDP decides.
_ROUNDING_PER_STEP = 2.0**-53
_MOST_STEPS = 200_000
# How far two Renyi accountants may differ: relative, and for each step what rounding leaves of tiny divergences.
SAME = 1e-6
_SAME_PER_STEP = 1e-14


def epsilon(mechanisms: Iterable[Mechanism], delta: float, unit: Unit = "record") -> float:
    """Epsilon of the composition of all ``mechanisms`` at ``delta``; 0.0 of none, ``inf`` above 700.

    Guarantee: an upper bound for ``unit`` and its ``NEIGHBOURS``, for everyone who sees all outputs. A round may depend
    on the outputs before it, its noise, rate and steps may not; assumes sampling and noise as each mechanism describes.
    Raises ``BadInput`` on what has no epsilon for ``unit``, on a delta below 1e-12 or from 1; ``AccountingMismatch``.
    """
    return decided(charged(mechanisms, unit), delta)


def decides(mechanisms: Iterable[Mechanism], delta: float, unit: Unit = "record") -> Literal["PLD", "RDP"]:
    """Which accountant's figure ``epsilon`` returns for these ``mechanisms``.

    RDP's with Skellam sums, and after so many sampled steps that their PLD is not known well enough for ``delta``.
    """
    total = charged(mechanisms, unit)
    return "PLD" if not skellams(total) and _known(total, delta) else "RDP"


def version() -> str:
    """The version of ``dp_accounting`` that is installed."""
    return metadata.version("dp-accounting")


def cross_check(mechanisms: Iterable[Mechanism], delta: float, unit: Unit = "record") -> float:
    """The second opinion on ``epsilon``, after checking that both can hold; ``inf`` where ``epsilon`` is.

    Where the PLD decides: the Renyi accountant's, which must not lie below it by more than the PLD's grid explains.
    Where RDP decides: that of ``renyi``, which must be the same; nor may it lie below the PLD of Gaussians in place of
    the Skellam sums, whose curves are no lower than a Gaussian's. Raises ``AccountingMismatch`` otherwise.
    """
    total = charged(mechanisms, unit)
    first = decided(total, delta)
    if math.isinf(first):
        return first
    if not skellams(total):
        return _renyi_epsilon(total, delta)
    _refuse_below_gaussian(total, delta)
    return renyi.epsilon(total, delta)


def parallel(epsilons: Iterable[float]) -> float:
    """Epsilon of a federation, from those of its clients at one delta: the largest; 0.0 of none.

    Guarantee: assumes that no unit of privacy has data at two clients, as all of them declared. Without that, what
    holds is ``epsilon`` of all clients' mechanisms together.
    """
    return max(epsilons, default=0.0)


@lru_cache(maxsize=4096)
def decided(total: Total, delta: float, grid: float = FINE) -> float:
    """Epsilon of a total, by the accountant that decides; ``grid``: that of the PLD, in epsilon."""
    if not _LEAST_DELTA <= delta < 1:
        raise BadInput(f"delta is {delta}: it must be at least {_LEAST_DELTA:g} and well below 1 / number of records")
    ceiling = _renyi_epsilon(total, delta)
    if ceiling > _HOPELESS:
        return math.inf
    if skellams(total):
        _refuse_disagreement(total, delta, ceiling)
        figure = ceiling
    else:
        figure = _loss_epsilon(total, delta, grid, ceiling)
    return figure if figure <= MOST_EPSILON else math.inf


def _refuse_disagreement(total: Total, delta: float, first: float) -> None:
    second = renyi.epsilon(total, delta)
    if abs(first - second) > SAME * (1 + first) + _SAME_PER_STEP * sum(one.count for one in total):
        raise AccountingMismatch(
            f"two Renyi accountants say epsilon {first:.9g} and {second:.9g}, which should be the same: "
            f"release nothing, and check the installed dp_accounting"
        )


def _refuse_below_gaussian(total: Total, delta: float) -> None:
    instead = (SampledGaussian(math.sqrt(one.variance) / one.l2, 1.0, one.count) for one in skellams(total))
    _loss_epsilon((*gaussians(total), *instead), delta, COARSE, _renyi_epsilon(total, delta))


def _loss_epsilon(total: Total, delta: float, grid: float, ceiling: float) -> float:
    """The PLD's epsilon of Gaussians, after checking that it is not above the Renyi accountant's, ``ceiling``.

    ``inf`` where its exponentials overflow, which contradicts nothing.
    """
    if ceiling > FINE_UP_TO:
        grid *= 10 ** math.ceil(math.log10(ceiling / FINE_UP_TO))
    parts = _unsampled_together(gaussians(total))
    if not parts:
        return 0.0
    if not _known(total, delta):
        return ceiling
    loss, *others = (composed(one.noise_multiplier, one.sampling_rate, one.count, grid) for one in parts)
    for other in others:
        loss = loss.compose(other)
    with np.errstate(over="ignore"):
        result = float(loss.get_epsilon_for_delta(delta - _lost(total)))
    if math.inf > result > ceiling + slack(sum(one.count for one in parts), delta, grid):
        raise AccountingMismatch(
            f"the PLD accountant says epsilon {result:.6g} and the Renyi accountant at most {ceiling:.6g}, "
            f"which cannot both hold: release nothing, and check the installed dp_accounting"
        )
    return result


def _lost(total: Total) -> float:
    """What of delta may be lost to rounding."""
    return _ROUNDING_PER_STEP * _sampled_steps(total)


def _known(total: Total, delta: float) -> bool:
    return _lost(total) <= delta / 10 and _sampled_steps(total) <= _MOST_STEPS


def _sampled_steps(total: Total) -> int:
    return sum(one.count for one in gaussians(total) if one.sampling_rate < 1)


def _unsampled_together(costs: list[SampledGaussian]) -> list[SampledGaussian]:
    """Gaussians that are not sampled compose to one Gaussian, exactly: the inverse variances add up."""
    precision = math.fsum(one.count / one.noise_multiplier**2 for one in costs if one.sampling_rate == 1)
    sampled = [one for one in costs if one.sampling_rate < 1]
    return [*sampled, SampledGaussian(1 / math.sqrt(precision), 1.0, 1)] if precision else sampled


def slack(steps: int, delta: float, grid: float) -> float:
    """How far the PLD's grid can lift its epsilon.

    A loss is split onto its two neighbours on the grid, keeping the mean of exp(-loss): that adds at most grid^2/8 to
    its mean and grid^2/4 to its variance; over all steps a deviation of grid/2 * sqrt(steps), of which
    sqrt(2 ln(1/delta)) count at ``delta`` (Gaussian tail).
    """
    deviation = grid / 2 * math.sqrt(steps)
    return grid + steps * grid**2 / 8 + deviation * math.sqrt(2 * math.log(1 / delta))


@lru_cache(maxsize=32)
def composed(noise: float, rate: float, steps: int, grid: float) -> PrivacyLossDistribution:
    """The PLD of so many sampled Gaussians, of add-or-remove-one; ``grid``: of its losses."""
    step = _step(noise, rate, grid)
    return step if steps == 1 else step.self_compose(steps)


@lru_cache(maxsize=32)
def _step(noise: float, rate: float, grid: float) -> PrivacyLossDistribution:
    from dp_accounting.pld import privacy_loss_distribution

    # Its default neighbouring relation is add-or-remove-one: both directions are kept and the worse one counts.
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid
    )


@lru_cache(maxsize=4096)
def _renyi_epsilon(total: Total, delta: float) -> float:
    if not total:
        return 0.0
    if least_noise(total) < LEAST_NOISE:
        return math.inf
    from dp_accounting.rdp import compute_epsilon

    curve = sum(part.count * np.array(_renyi_curve(single(part))) for part in total)
    return float(compute_epsilon(renyi.ORDERS, curve, delta)[0])


@lru_cache(maxsize=4096)
def _renyi_curve(one: Cost) -> tuple[float, ...]:
    if isinstance(one, SkellamSum):
        return tuple(_skellam_divergence(one, order) for order in renyi.ORDERS)
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(renyi.ORDERS, NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(PoissonSampledDpEvent(one.sampling_rate, GaussianDpEvent(one.noise_multiplier)))
    # Rounding can leave less than nothing, which dp_accounting takes for an epsilon of zero.
    return tuple(max(0.0, float(divergence)) for divergence in accountant.rdp)


def _skellam_divergence(one: SkellamSum, order: int) -> float:
    """Agarwal et al., NeurIPS 2021, corollary 3.6. Written out apart from ``renyi``, which checks it."""
    squared = one.l2 * one.l2
    small = min(((2 * order - 1) * squared + 6 * one.l1) / (4 * one.variance**2), 3 * one.l1 / (2 * one.variance))
    return order * squared / (2 * one.variance) + small
