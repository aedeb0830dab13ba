"""What an audit's scores say of a claim: bounds on epsilon from below, named tests, and whether the claim can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from securefl.audit import checks
from securefl.audit.bounds import clopper_pearson, mean_shift, one_run, one_run_fdp, one_shot, sampled
from securefl.audit.bounds.bound import CONFIDENCE, Bound
from securefl.audit.bounds.families import Family, Gaussians, SampledGaussians
from securefl.audit.bounds.headline import named
from securefl.audit.checks import Check, Declared
from securefl.errors import BadInput
from securefl.privacy.mechanism import SampledGaussian

REFUTING = 0.999
"""The confidence of the bound that refutes a claim; and as much for all named tests together."""


class Scores(Struct, frozen=True):
    """What was seen, as bytes, row by row. ``values``: float32, little-endian, (canaries, rounds); ``included``: one
    byte a canary. ``known``: by client, the noise that the adversary knew, in the shape of ``values``. ``charges``: by
    audited client, for how many rounds its ledger was charged and to how many it contributed. ``elsewhere``: of all
    rounds together, by parameter of the model itself, the sum of squares of what moved it and of how many numbers.
    """

    canaries: int
    rounds: int
    values: bytes
    included: bytes
    known: dict[str, bytes]
    charges: dict[str, tuple[int, int]]
    elsewhere: dict[str, tuple[float, int]]

    def __post_init__(self) -> None:
        size = 4 * self.canaries * self.rounds
        if {len(self.values), *map(len, self.known.values())} != {size} or len(self.included) != self.canaries:
            raise BadInput("an audit's scores are not as many as it says: restore them from a backup, or audit again")

    @property
    def array(self) -> NDArray[np.float64]:
        return self._array(self.values)

    @property
    def coins(self) -> NDArray[np.bool_]:
        return np.frombuffer(self.included, np.uint8).astype(np.bool_)

    @property
    def others(self) -> dict[str, NDArray[np.float64]]:
        return {name: self._array(values) for name, values in self.known.items()}

    def _array(self, values: bytes) -> NDArray[np.float64]:
        return np.frombuffer(values, "<f4").reshape(self.canaries, self.rounds).astype(np.float64)


class Question(Struct, frozen=True):
    """What is asked of the scores. ``claim``: the epsilon that is claimed, at ``delta``; ``headline``: the method that
    decides, named before the run.
    """

    declared: Declared
    claim: float
    delta: float
    headline: str
    confidence: float = CONFIDENCE


class Assessment(Struct, frozen=True):
    """``bounds``: by every method, each at the asked confidence. ``refuting``: that of the default headline, whichever
    was asked for, at 99.9 %.
    """

    bounds: tuple[Bound, ...]
    headline: Bound
    refuting: Bound
    checks: tuple[Check, ...]
    refuted: tuple[str, ...]

    @property
    def violated(self) -> bool:
        """Whether the claim, or what it rests on, cannot hold."""
        return bool(self.refuted)


def default_headline(declared: Declared) -> str:
    """The method that is tightest where its assumption holds: by sampling, and by whether each step is seen apart."""
    if declared.rate == 1:
        return mean_shift.METHOD
    return sampled.METHOD if len(declared.weights) == 1 else one_run_fdp.METHOD


def methods(declared: Declared) -> tuple[str, ...]:
    """The methods whose assumptions these scores can meet, the least assuming first; estimates last."""
    found = (one_run.METHOD, one_run_fdp.METHOD, clopper_pearson.METHOD)
    if declared.rate == 1:
        return *found, mean_shift.METHOD, one_shot.METHOD
    return (*found, sampled.METHOD) if len(declared.weights) == 1 else found


def check_headline(headline: str, declared: Declared) -> None:
    """Raise ``BadInput`` for what bounds nothing here."""
    bounding = [method for method in methods(declared) if method != one_shot.METHOD]
    if headline not in bounding:
        raise BadInput(f"{headline!r} bounds nothing here: name one of {', '.join(bounding)} as the headline")


def assess(scores: Scores, asked: Question) -> Assessment:
    """All bounds and tests. Raises ``BadInput`` for a headline that does not apply, and for scores without end."""
    check_headline(asked.headline, asked.declared)
    bounds = tuple(_bound(method, scores, asked, asked.confidence) for method in methods(asked.declared))
    refuting = _bound(default_headline(asked.declared), scores, asked, REFUTING)
    found = checks.all_of(scores.array, scores.coins, scores.others, asked.declared, scores.charges, scores.elsewhere)
    return Assessment(
        bounds,
        named(bounds, asked.headline, asked.confidence),
        refuting,
        found,
        tuple(_refuted(refuting, found, asked)),
    )


def _refuted(refuting: Bound, found: tuple[Check, ...], asked: Question) -> Iterator[str]:
    if refuting.refutes(asked.claim):
        yield f"epsilon is at least {refuting.epsilon:.3f} and {asked.claim:.3f} is claimed ({refuting.method}, 99.9 %)"
    for check in found:
        if check.p < (1 - REFUTING) / len(found):
            yield f"{check.name}: not as declared, {check.tests} (p = {check.p:.2g})"


def _bound(method: str, scores: Scores, asked: Question, confidence: float) -> Bound:
    values, coins, declared, delta = scores.array, scores.coins, asked.declared, asked.delta
    steps, family = declared.weights * scores.rounds, _family(declared, scores.rounds)
    statistic = _statistic(values, declared)
    inside, outside = statistic[coins], statistic[~coins]
    match method:
        case one_run.METHOD:
            return one_run.lower_bound(statistic, coins, delta, confidence)
        case one_run_fdp.METHOD:
            return one_run_fdp.lower_bound(statistic, coins, delta, confidence, family)
        case clopper_pearson.METHOD:
            return clopper_pearson.lower_bound(inside, outside, delta, confidence, family)
        case mean_shift.METHOD:
            return mean_shift.lower_bound(inside, outside, delta, confidence)
        case sampled.METHOD:
            claimed = SampledGaussian(declared.noise, declared.rate, len(steps))
            return sampled.lower_bound(values[coins], values[~coins], claimed, delta, confidence)
        case one_shot.METHOD:
            return one_shot.estimate(inside, outside, delta)
    raise BadInput(f"unknown method {method!r}: name one of {', '.join(methods(declared))}")


def _family(declared: Declared, rounds: int) -> Family:
    if declared.rate == 1:
        return Gaussians()
    return SampledGaussians(declared.rate, rounds * len(declared.weights))


def _statistic(values: NDArray[np.float64], declared: Declared) -> NDArray[np.float64]:
    """One number a canary: the log-likelihood ratio of having been there, at the declared noise; else the sum."""
    if declared.rate == 1 or len(declared.weights) > 1:
        found: NDArray[np.float64] = values.sum(axis=1)
        return found
    exponent = (values - 0.5) / declared.noise**2
    logs: NDArray[np.float64] = np.logaddexp(math.log1p(-declared.rate), math.log(declared.rate) + exponent)
    ratios: NDArray[np.float64] = logs.sum(axis=1)
    return ratios
