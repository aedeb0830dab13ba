"""Named tests of what an audit saw against what was declared: they find faults that a bound on epsilon leaves unnamed.

Each has a p-value that holds if the mechanism is as declared; together they accuse an honest one as often as their
level says, at most. Arrays in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import stats

from securefl.errors import BadInput

LEVEL: Final = 0.01
"""How often all tests together may accuse an honest mechanism."""

_Array = NDArray[np.float64]


class Check(Struct, frozen=True):
    """One test. ``p``: the chance that a mechanism as declared looks as far off as this one; ``level``: below it, the
    test has ``failed``.
    """

    name: str
    tests: str
    p: float
    level: float

    @property
    def failed(self) -> bool:
        return self.p < self.level

    def __str__(self) -> str:
        return f"{self.name}: p = {self.p:.3g}{', FAILED' if self.failed else ''} ({self.tests})"


class Declared(Struct, frozen=True):
    """What a round's score is, by declaration, in clips: of a canary that is left out, Gaussian noise of standard
    deviation ``noise``; of one that is there, also the ``weights`` of steps that it is in, each with chance ``rate``.
    Raises ``BadInput`` for what no mechanism can be.
    """

    noise: float
    weights: tuple[float, ...]
    rate: float

    def __post_init__(self) -> None:
        if not (0 < self.noise < math.inf and 0 < self.rate <= 1 and self.weights and min(self.weights) > 0):
            raise BadInput(f"{self}: noise, a rate of at most 1 and a step are needed, each above 0")

    @property
    def shift(self) -> float:
        """How far the mean of a canary that is there is from that of one that is not."""
        return self.rate * math.fsum(self.weights)


def all_of(
    scores: _Array,
    included: NDArray[np.bool_],
    known: Mapping[str, _Array],
    declared: Declared,
    charges: Mapping[str, tuple[int, int]],
    elsewhere: Mapping[str, tuple[float, int]],
    level: float = LEVEL,
) -> tuple[Check, ...]:
    """Every test that these scores, shape (canaries, rounds), allow; ``level`` is split evenly among them.

    ``known``: by client, the noise that the adversary knows, in the same shape. ``charges``: by audited client, how
    many rounds its ledger was charged for, and how many it contributed to. ``elsewhere``: as in ``noise_everywhere``;
    empty where rounds have several steps, of which a later one may undo the noise of an earlier one.
    """
    inside, outside = scores[included], scores[~included]
    found: list[tuple[str, str, float]] = [("charges", "each round that was contributed to is charged", paid(charges))]
    if outside.size:
        found.append(("noise scale", "there is as much noise as declared", noise_scale(outside, declared.noise)))
    if elsewhere:
        everywhere = "every parameter has as much noise as declared"
        found.append(("noise everywhere", everywhere, noise_everywhere(elsewhere, declared.noise)))
    if inside.size > 1 and outside.size > 1:
        name = "canaries move the sum by no more than a clip"
        found.append(("canary length", name, canary_length(inside, outside, declared)))
    if len(outside) > 1 and scores.shape[1] > 1:
        found.append(("fresh noise", "noise of different rounds is independent", fresh_noise(outside)))
    if outside.size > 2 and known:
        left_out = {name: rows[~included] for name, rows in known.items()}
        found.append(("own noise", "noise of different clients is independent", own_noise(outside, left_out)))
    steps = scores.shape[1] * len(declared.weights)
    if inside.size > 1 and outside.size and declared.rate < 1 and steps * declared.rate >= 2:
        found.append(
            ("sampling", "canaries are sampled independently in each step", sampling(inside, outside, declared))
        )
    return tuple(Check(name, tests, p, level / len(found)) for name, tests, p in found)


def noise_everywhere(elsewhere: Mapping[str, tuple[float, int]], noise: float) -> float:
    """That every parameter of the model has at least as much noise as declared, and not the canaries' rows only.

    ``elsewhere``: by parameter, the sum of squares of what moved it, in clips, and of how many numbers. Besides noise
    there are canaries in it and, where they are sampled, all records: these only raise it, since a noncentral
    chi-squared is never the smaller, and hide what is missing if they are large. Bonferroni.
    """
    return min(1.0, len(elsewhere) * min(_less(squares, count, noise) for squares, count in elsewhere.values()))


def _less(squares: float, count: int, noise: float) -> float:
    return float(stats.chi2.cdf(squares / noise**2, count))


def noise_scale(scores_out: _Array, noise: float) -> float:
    """That there is at least as much noise as declared: squares of Gaussians are chi-squared, about zero."""
    return float(stats.chi2.cdf(float(np.sum(scores_out**2)) / noise**2, scores_out.size))


def canary_length(scores_in: _Array, scores_out: _Array, declared: Declared) -> float:
    """That no canary moves the sum by more than a clip a step: Welch's test of the difference of means, one-sided."""
    apart = scores_in.ravel() - declared.shift
    if np.ptp(apart) == 0 and np.ptp(scores_out) == 0:
        return float(apart.mean() <= scores_out.mean())
    return float(stats.ttest_ind(apart, scores_out.ravel(), equal_var=False, alternative="greater").pvalue)


def fresh_noise(scores_out: _Array) -> float:
    """That no canary's noise resembles itself from round to round: analysis of variance, exact for Gaussians."""
    if np.ptp(scores_out) == 0:
        return 1.0  # no noise at all is another test's finding
    if np.ptp(scores_out, axis=1).max() == 0:
        return 0.0
    return float(stats.f_oneway(*scores_out).pvalue)


def own_noise(scores_out: _Array, known: Mapping[str, _Array]) -> float:
    """That unknown noise resembles none that is known: correlations, exact for Gaussians; Bonferroni over clients."""
    noisy = [rows.ravel() for rows in known.values() if np.ptp(rows) > 0]
    if np.ptp(scores_out) == 0 or not noisy:
        return 1.0  # no noise at all is another test's finding
    worst = min(float(stats.pearsonr(scores_out.ravel(), rows).pvalue) for rows in noisy)
    return min(1.0, worst * len(noisy))


def sampling(scores_in: _Array, scores_out: _Array, declared: Declared) -> float:
    """That how often a canary takes part varies as much as independent sampling makes it vary.

    In windows of 1 / rate steps, shuffling has each record once. What is compared is the variance of windows' sums of
    canaries that are there with what sampling adds to noise, as much as those left out show. Their quotient is F with
    the degrees of freedom that give both the variances they have (Satterthwaite, Biometrics 1946).
    """
    rounds = max(1, round(1 / declared.rate / len(declared.weights)))
    windows, noise = _windows(scores_in, rounds), float(np.mean(scores_out**2))
    if len(windows) < _FEWEST_WINDOWS:
        return 1.0
    # Where the model moves on within a round canaries are seen as less than they are, and sampling adds less, too.
    seen = min(1.0, max(0.0, float(scores_in.mean() - scores_out.mean()) / declared.shift))
    seen = seen if len(declared.weights) > 1 else 1.0
    of_sampling, fourth = (seen**power * one for power, one in zip((2, 4), _cumulants(declared), strict=True))
    expected = rounds * (of_sampling + noise)
    # Of a sample variance: (fourth cumulant) / n + 2 variance^2 / (n - 1); of the mean square of N Gaussians: 2 / N.
    seen_varies = rounds * fourth / len(windows) + 2 * expected**2 / (len(windows) - 1)
    expected_varies = 2 * (rounds * noise) ** 2 / scores_out.size
    freedoms = (min(_MANY, 2 * expected**2 / max(one, _NOTHING)) for one in (seen_varies, expected_varies))
    return float(stats.f.cdf(float(np.var(windows, ddof=1)) / expected, *freedoms))


_FEWEST_WINDOWS = 30  # with fewer, what sampling adds is too far from normal for the level to hold
_MANY, _NOTHING = 1e9, 1e-300  # degrees of freedom of what does not vary at all


def paid(charges: Mapping[str, tuple[int, int]]) -> float:
    """That every ledger has a charge for every round: certain or false."""
    return float(all(charged >= contributed for charged, contributed in charges.values()))


def _windows(scores: _Array, rounds: int) -> _Array:
    whole = scores[:, : scores.shape[1] // rounds * rounds]
    sums: _Array = whole.reshape(len(scores), -1, rounds).sum(axis=2)
    return sums.ravel()


def _cumulants(declared: Declared) -> tuple[float, float]:
    """The second and the fourth cumulant of how much of a round's steps a canary takes part in."""
    chance = declared.rate * (1 - declared.rate)
    second = chance * math.fsum(weight**2 for weight in declared.weights)
    return second, chance * (1 - 6 * chance) * math.fsum(weight**4 for weight in declared.weights)
