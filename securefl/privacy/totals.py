"""What was released, added up: equal costs counted together, in one order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from securefl.privacy.mechanism import Cost, Mechanism, SampledGaussian, SkellamSum, Unit, cost

Total = tuple[Cost, ...]
"""Composition does not depend on the order, a cache's key does. The clip is not in it: noise is in sensitivities."""


def charged(mechanisms: Iterable[Mechanism], unit: Unit) -> Total:
    """All of them. Raises ``BadInput`` on what has no epsilon for ``unit``."""
    # Equal ones first: a ledger repeats itself.
    repeated = Counter(mechanisms).items()
    return together(part for one, count in repeated for part in times([cost(one, unit)], count))


def together(costs: Iterable[Cost]) -> Total:
    """All of ``costs``; what counts 0 in the end is left out."""
    counts: Counter[Cost] = Counter()
    for part in costs:
        counts[single(part)] += part.count
    merged = [replace(part, count=count) for part, count in counts.items() if count]
    return *sorted(gaussians(merged)), *sorted(skellams(merged))


def times(costs: Iterable[Cost], factor: int) -> list[Cost]:
    """Each of them so many times."""
    return [replace(part, count=factor * part.count) for part in costs]


def single(part: Cost) -> Cost:
    """One of this kind."""
    return replace(part, count=1)


def gaussians(costs: Iterable[Cost]) -> list[SampledGaussian]:
    """The sampled Gaussians among them."""
    return [one for one in costs if isinstance(one, SampledGaussian)]


def skellams(costs: Iterable[Cost]) -> list[SkellamSum]:
    """The Skellam sums among them."""
    return [one for one in costs if isinstance(one, SkellamSum)]


def least_noise(total: Total) -> float:
    """Of any part, in sensitivities."""
    noises = [one.noise_multiplier for one in gaussians(total)]
    return min(noises + [math.sqrt(one.variance) / one.l2 for one in skellams(total)])
