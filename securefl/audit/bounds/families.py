"""Families of trade-off functions, ordered by how much they leak: what a bound assumes the mechanism to be one of.

To refute one member, and so all that leak less, bounds epsilon from below. It says nothing of mechanisms outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from securefl.audit.bounds import gdp
from securefl.audit.bounds.refutation import largest_refuted
from securefl.errors import BadInput
from securefl.privacy import tradeoff
from securefl.privacy.mechanism import SampledGaussian

TradeOff = Callable[[float], float]
"""The least false negative rate of any test at a false positive rate: convex, falling, at most 1 - rate."""


class Family(Protocol):
    """Symmetric trade-off functions by strength, in ``least``..``most``: the stronger one lies below everywhere.

    ``resolution``: relative, in which strengths are searched.
    """

    @property
    def assumes(self) -> str:
        """What a bound with this family takes for granted, in words."""

    @property
    def least(self) -> float: ...
    @property
    def most(self) -> float: ...
    @property
    def resolution(self) -> float: ...

    def tradeoff(self, strength: float) -> TradeOff:
        """The function of that strength, or one that lies below it."""

    def epsilon(self, strength: float, delta: float) -> float:
        """Of that strength at ``delta``, or less."""


@dataclass(frozen=True)
class Gaussians:
    """mu-GDP, of strength mu: Gaussian noise on sums that every canary is part of (q = 1), over any number of steps."""

    assumes: str = "the trade-off function is a Gaussian's (exact at q = 1 only)"
    least: float = 1e-3
    most: float = gdp.MOST_SHIFT
    resolution: float = 1e-5

    def tradeoff(self, strength: float) -> TradeOff:
        """f of ``strength``-GDP."""
        return partial(gdp.tradeoff, strength)

    def epsilon(self, strength: float, delta: float) -> float:
        """Of ``strength``-GDP, exactly."""
        return gdp.epsilon(strength, delta)


@dataclass(frozen=True)
class SampledGaussians:
    """``steps`` Poisson-sampled Gaussians at ``rate``, of strength 1 / noise multiplier.

    The worse of adding and removing counts everywhere, which makes functions lower than either, and bounds smaller.
    """

    rate: float
    steps: int
    least: float = 0.02
    most: float = 10.0
    # Each strength costs a composition of tenths of a second.
    resolution: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or self.steps < 1:
            raise BadInput(
                f"rate {self.rate}, steps {self.steps}: a rate above 0 and at most 1, and a step, are needed"
            )

    @property
    def assumes(self) -> str:
        """What is not tested."""
        return f"the mechanism is {self.steps} Poisson-sampled Gaussians at rate {self.rate:g}, of unknown noise"

    def tradeoff(self, strength: float) -> TradeOff:
        """Not above the true one: it is made from upper bounds on delta."""
        return tradeoff.curve(self._cost(strength))

    def epsilon(self, strength: float, delta: float) -> float:
        """A lower bound on that of ``strength``: what the accountant's grid may add is taken off."""
        return tradeoff.least_epsilon(self._cost(strength), delta)

    def _cost(self, strength: float) -> SampledGaussian:
        return SampledGaussian(1 / strength, self.rate, self.steps)


def largest_refuted_epsilon(family: Family, refuted: Callable[[TradeOff], bool], delta: float) -> float:
    """Epsilon at ``delta`` of the strongest member of ``family`` whose trade-off function is refuted; else 0.0."""
    strength = largest_refuted(
        lambda strength: refuted(family.tradeoff(strength)), family.least, family.most, family.resolution
    )
    return family.epsilon(strength, delta) if strength else 0.0
