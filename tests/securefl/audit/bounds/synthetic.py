"""Scores of canaries as the mechanism itself would give them, and how many false alarms a level allows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

DELTA = 1e-5
CANARIES = 1000
STEPS = 60


class Seen(NamedTuple):
    """Scores, one a canary or one a canary and step, and which canaries were in."""

    scores: NDArray[np.float64]
    included: NDArray[np.bool_]

    @property
    def inside(self) -> NDArray[np.float64]:
        return self.scores[self.included]

    @property
    def outside(self) -> NDArray[np.float64]:
        return self.scores[~self.included]


def gaussian(seed: int, shift: float, canaries: int = CANARIES) -> Seen:
    """What mu-GDP with mu = ``shift`` shows of a canary: unit noise, shifted where it was in."""
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    return Seen(rng.standard_normal(canaries) + shift * included, included)


def sampled(seed: int, noise: float, rate: float, canaries: int = CANARIES, steps: int = STEPS) -> Seen:
    """A Dirac canary's coordinate at every step, in clips: 1 where it was in and drawn, plus noise."""
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    drawn = included[:, None] & (rng.random((canaries, steps)) < rate)
    return Seen(noise * rng.standard_normal((canaries, steps)) + drawn, included)


def most_alarms(runs: int, level: float) -> int:
    """The most false alarms that ``runs`` at ``level`` have, but for a probability of 1e-6."""
    return int(binom.ppf(1 - 1e-6, runs, level))


def least_alarms(runs: int, level: float) -> int:
    """The least, likewise."""
    return int(binom.ppf(1e-6, runs, level))
