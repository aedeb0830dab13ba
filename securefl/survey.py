"""How good the model is at each client: counted in classes, under the round's protection and with noise.

Clients measure on their held-out records: the federated model, one that they train on their own records alone, and the
federated model after one more round of training on those (personalisation). Of each only the class of its accuracy goes
out, as a one in a vector of zeros; the sum over the clients, with noise, is all that anybody sees.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from securefl import protection
from securefl.data import Dataset
from securefl.mishaps import Tell, described
from securefl.plan import Plan, Survey
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import Random, grid, noised
from securefl.releases import SCORES_BOUND

if TYPE_CHECKING:
    from torch import nn

MODELS: Final = ("federated", "local", "personalised")
_LENGTH: Final = math.sqrt(len(MODELS)) * (1 + 2.0**-30)
"""Of what one client adds, before it is divided by this: one in three places. Norms err by less in float64."""
_QUIET: Final = 1e-9  # noise of a model that never leaves its client
_ROUNDING: Final = 1e-9  # of shares that are added up: a class that reaches a quartile exactly, reaches it


class Spread(Struct, frozen=True):
    """Accuracies of clients, each class standing for its middle. ``counts``: as they came out of the noise, so that
    some are negative; ``deviation``: of each, by the noise. ``worst``: the lowest class that has more clients than
    three deviations, the lower quartile where none has.

    All else is of the nearest counts that can be true: none is negative, and together they are all clients.
    """

    counts: tuple[float, ...]
    mean: float
    variance: float
    worst: float
    quartiles: tuple[float, float, float]
    deviation: float

    def __str__(self) -> str:
        low, middle, high = self.quartiles
        return f"mean {self.mean:.2f}, worst {self.worst:.2f}, quartiles {low:.2f} / {middle:.2f} / {high:.2f}"


class Found(Struct, frozen=True):
    """What a survey found. ``auc`` (area under the ROC curve, ties halved) and ``calibration`` (expected calibration
    error, Naeini et al., AAAI 2015) of the federated model on all held-out records, from noised counts of scores.
    """

    clients: int
    spread: dict[str, Spread]
    auc: float | None = None
    calibration: float | None = None

    def __str__(self) -> str:
        models = "; ".join(f"{name}: {spread}" for name, spread in self.spread.items())
        deviation = self.spread[MODELS[0]].deviation
        known = {"AUC": self.auc, "calibration error": self.calibration}
        beside = "".join(f"; {name} {value:.3f}" for name, value in known.items() if value is not None)
        return (
            f"accuracy at {self.clients} clients on records of their own, from counts with noise of deviation "
            f"{deviation:.2g}: {models}{beside}"
        )


def counts(
    module: nn.Module,
    fresh: Callable[[], nn.Module],
    plan: Plan,
    asked: Survey,
    data: Dataset,
    held_out: Dataset,
    random: Random,
    tell: Tell,
) -> NDArray[np.float64]:
    """What one client sends: counts of clients divided by their length, then noised counts of its records' scores.

    ``module``: with the federated model; ``fresh`` makes one as all begin with. Scores are divided by the declared
    number of held-out records, so that each client counts alike. What goes wrong counts as accuracy 0, and ``tell``
    hears of it: whoever stayed away would tell that it did.
    """
    measured = [_tried(one, held_out, tell) for one in _models(module, fresh, plan, data, random, tell)]
    found = np.zeros((len(MODELS), asked.bins))
    for row, accuracy in enumerate(measured):
        found[row, min(int(accuracy * asked.bins), asked.bins - 1)] = 1 / _LENGTH
    if asked.scores is None:
        return found.ravel()
    scores = noised(
        _scores(module, held_out, asked.bins, tell).ravel(),
        asked.scores * SCORES_BOUND,
        grid(SCORES_BOUND, 2 * asked.bins),
        random,
    )
    most = plan.bound * held_out.declared_size  # what the encoding can hold of a count, which it divides by this
    return np.concatenate([found.ravel(), np.clip(scores / held_out.declared_size, -most, most)])


def found(plan: Plan, counts: Sequence[float], contributors: int) -> Found:
    """What the sums say. ``counts``: the survey's part of the global vector, after its round."""
    asked = plan.privacy.survey
    if asked is None:
        raise ValueError("the plan has no survey")
    block = np.array(counts, np.float64)
    rows = block[: len(MODELS) * asked.bins].reshape(len(MODELS), -1) * _LENGTH
    noise = deviation(plan, contributors)
    found = {name: spread(row, contributors, noise) for name, row in zip(MODELS, rows.tolist(), strict=True)}
    if asked.scores is None:
        return Found(contributors, found)
    negative, positive = block[len(MODELS) * asked.bins :].reshape(2, -1).clip(min=0)
    return Found(contributors, found, _auc(negative, positive), _calibration(negative, positive))


def deviation(plan: Plan, contributors: int) -> float:
    """Standard deviation of each count of clients, in clients, by the noise of so many contributors together."""
    asked = plan.privacy.survey
    if asked is None:
        raise ValueError("the plan has no survey")
    return asked.noise_multiplier * _LENGTH * math.sqrt(contributors / protection.honest(plan))


def spread(counts: Sequence[float], clients: int, deviation: float) -> Spread:
    """What noised counts of ``clients`` say; they are rounded first, so that who reads them comes to the same."""
    row = np.array(counts, np.float64).round(3) + 0.0  # JSON has no -0.0
    middles = (np.arange(len(row)) + 0.5) / len(row)
    shares = _nearest(row, clients) / clients
    mean = float(shares @ middles)
    passed = np.cumsum(shares) + _ROUNDING
    first, second, third = (
        float(middles[min(int(np.searchsorted(passed, q)), len(row) - 1)]) for q in (0.25, 0.5, 0.75)
    )
    sure = np.flatnonzero(row > max(3 * deviation, 0.5))
    return Spread(
        counts=tuple(row.tolist()),
        mean=mean,
        variance=float(shares @ (middles - mean) ** 2),
        worst=float(middles[sure[0]]) if len(sure) else first,
        quartiles=(first, second, third),
        deviation=deviation,
    )


def _models(
    module: nn.Module, fresh: Callable[[], nn.Module], plan: Plan, data: Dataset, random: Random, tell: Tell
) -> list[Callable[[], nn.Module]]:
    """The three of them, each made when it is asked for."""
    from securefl import training, vector

    quiet = plan.mechanism
    if isinstance(quiet, DPSGD):
        quiet = msgspec.structs.replace(quiet, noise_multiplier=_QUIET)

    def trained(start: Callable[[], nn.Module], rounds: int) -> Callable[[], nn.Module]:
        def made() -> nn.Module:
            own = start()
            for number in range(1, rounds + 1):
                rate = plan.optimizer.at(number, plan.rounds)
                vector.load(own, vector.flatten(own) + training.train(own, data, quiet, rate, random, tell=tell))
            return own

        return made

    return [lambda: module, trained(fresh, plan.rounds), trained(lambda: copy.deepcopy(module), 1)]


def _tried(make: Callable[[], nn.Module], held_out: Dataset, tell: Tell) -> float:
    from securefl import evaluation

    try:
        return float(evaluation.sums(make(), held_out, 1.0, tell)[0]) / len(held_out)
    except Exception as error:  # the owner's model or data code: the round goes on, and nobody hears why
        tell(f"a model could not be measured, and counts as wrong everywhere: {described(error)}")
        return 0.0


def _scores(module: nn.Module, held_out: Dataset, bins: int, tell: Tell) -> NDArray[np.float64]:
    """How many records of each class (0, or any other) have which probability of not being 0; shape (2, bins)."""
    from securefl import evaluation

    found = np.zeros((2, bins))
    try:
        for score, label in zip(evaluation.scores(module, held_out, tell), held_out.labels, strict=True):
            found[int(label != 0), min(int(score * bins), bins - 1)] += 1
    except Exception as error:  # as in _tried
        tell(f"records could not be scored, and count as none: {described(error)}")
        return np.zeros((2, bins))
    return found


def _nearest(row: NDArray[np.float64], clients: int) -> NDArray[np.float64]:
    """The counts nearest to these, by the sum of squares, that can be true: what is too much is taken off all alike,
    and what falls below zero is zero ("Norm-Sub": Wang et al., NDSS 2020). To cut off at zero and scale instead pulls
    accuracies to the middle up to twice as far.
    """
    largest = np.sort(row)[::-1]
    excess = (np.cumsum(largest) - clients) / np.arange(1, len(row) + 1)
    last = int(np.flatnonzero(largest > excess)[-1])
    return np.maximum(row - float(excess[last]), 0.0)


def _auc(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float | None:
    """The chance that one of the class scores above one that is not; equal bins count half (Hanley, McNeil 1982)."""
    if negative.sum() <= 0 or positive.sum() <= 0:
        return None
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / (negative.sum() * positive.sum()))


def _calibration(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float | None:
    both = negative + positive
    if both.sum() <= 0:
        return None
    middles = (np.arange(len(both)) + 0.5) / len(both)
    observed = np.divide(positive, both, out=middles.copy(), where=both > 0)
    return float((both * np.abs(observed - middles)).sum() / both.sum())
