"""Heart disease at the noise that FLamby's DP example used: accuracy of both, by the epsilon that all its steps cost.

Ours has the same rows, split, noise multipliers, sampling rates, clip, steps and rounds at each hospital, so that the
mechanism is the same. It starts from zero and has a learning rate of its own. It is measured twice: with the pilot's
public scaling, and with FLamby's, by each hospital's own mean and deviation, which no epsilon here covers.

This is a simulation on public data: seeds stand for draws of noise. With the first seed updates are added up by whole
sessions of secure aggregation, with the others in the clear.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from benchmarks import flamby, heart_dp_figure
from benchmarks.flamby import PUBLISHED, ROUNDS, Published
from benchmarks.round import Play, play
from benchmarks.rows import Row, value_row
from protocols.encoding.fixedpoint import FixedPoint
from protocols.primitives import Identity
from securefl import training, vector
from securefl.data import Dataset
from securefl.evaluation import accuracy
from securefl.keystream import local_work
from securefl.pilots.heart import CLIENTS, PILOT
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import Random

TITLE = "Heart disease at four hospitals, DP-SGD at FLamby's noise multipliers, delta 1e-3"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "heart_dp.svg"
# One for every noise level and scaling, chosen by five-fold cross-validation on training rows in a faster simulation of
# the same steps; `python -m benchmarks.heart_dp` is to repeat that with the library's own.
LEARNING_RATES, LEARNING_RATE = (0.001, 0.003, 0.01, 0.03), 0.003
SEEDS, FOLDS = 5, 5
TEST_ROWS = (104, 89, 16, 45)
BOUND = 8.0

Vectors = Sequence[NDArray[np.float32]]
Sum = Callable[[Vectors], NDArray[np.float64]]


@dataclass(frozen=True)
class Records:
    """The four hospitals' training and test rows under one scaling."""

    scaling: str
    clients: tuple[Dataset, ...]
    tests: tuple[Dataset, ...]


@dataclass(frozen=True)
class Score:
    """One value a seed: ``hospitals``, the mean of the hospitals' own test accuracies; ``pooled``, on all test rows.

    ``difference``: the most that a masked sum was off, in any coordinate and round.
    """

    hospitals: tuple[float, ...]
    pooled: tuple[float, ...]
    difference: float


@dataclass(frozen=True)
class Point:
    """One noise level: ours by scaling, theirs, and what :mod:`benchmarks.flamby` says that it costs."""

    published: Published
    epsilons: tuple[float, ...]
    unamplified: float
    scores: Mapping[str, Score]


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. All noise levels, and then the figure for the docs, unless it is to be quick."""
    torch.set_num_threads(1)
    seeds = range(1 if quick else SEEDS)
    points = [_point(one, seeds) for one in track(PUBLISHED[: 1 if quick else None], "noise levels", transient=True)]
    if not quick:
        _draw(points)
    difference = max(score.difference for one in points for score in one.scores.values())
    found = [row for one in points for row in _rows(one, quick)]
    return [*found, value_row("secagg_largest_difference", difference, "", quick)]


def score(published: Published, records: Records, seeds: Sequence[int]) -> Score:
    """Train and test at one noise level. Raises ``AssertionError`` where a masked sum is not the clear one."""
    check, found = _Checked(), []
    for seed in seeds:
        total = check if seed == seeds[0] else clear_sum
        module = federation(records.clients, flamby.mechanisms(published), LEARNING_RATE, seeded(seed), total)
        found.append([accuracy(module, test) for test in records.tests])
    each = np.array(found)
    pooled = np.average(each, axis=1, weights=TEST_ROWS)
    return Score(tuple(each.mean(axis=1).tolist()), tuple(pooled.tolist()), check.largest)


def federation(
    clients: Sequence[Dataset], rules: Sequence[DPSGD], learning_rate: float, random: Random, total: Sum
) -> nn.Module:
    """The global model after all rounds, each client under its own rule; ``total`` adds up what they hand in."""
    module, optimizer = vector.build(PILOT.model, seed=0), LocalOptimizer(learning_rate)
    for _ in range(ROUNDS):
        updates = [
            np.float32(weight) * training.train(module, data, mechanism, optimizer, random)
            for data, mechanism, weight in zip(clients, rules, PILOT.weights, strict=True)
        ]
        moved = vector.flatten(module) + total(updates) / sum(PILOT.weights)
        vector.load(module, moved.astype(np.float32))
    return module


def clear_sum(updates: Vectors) -> NDArray[np.float64]:
    """The sum, without protection."""
    total: NDArray[np.float64] = np.stack(updates).sum(axis=0, dtype=np.float64)
    return total


def masked_sum(updates: Vectors) -> NDArray[np.float64]:
    """The same through a whole session of secure aggregation, each hospital with a new identity."""
    identities = {name: Identity.generate(os.urandom) for name in CLIENTS}
    session = Play(_encoding(len(updates[0])), masked=True, identities=identities)
    return play(session, dict(zip(CLIENTS, updates, strict=True)), local_work()).total


def seeded(seed: int) -> Random:
    """Noise and sampling that can be repeated: protects nobody, and is for simulations only."""
    return np.random.Generator(np.random.Philox(seed)).bytes


def clinical() -> Records:
    """As the pilot scales: by clinical constants, the same at every hospital."""
    pooled, starts = PILOT.test(), np.cumsum(TEST_ROWS)[:-1]
    parts = zip(np.split(pooled.features, starts), np.split(pooled.labels, starts), strict=True)
    tests = tuple(Dataset(features, labels) for features, labels in parts)
    return Records("clinical", tuple(PILOT.load(client) for client in CLIENTS), tests)


def standardised() -> Records:
    """As FLamby scales: by mean and deviation of each hospital's training rows, which hides how hospitals differ."""
    given = clinical()
    pairs = [_standardised(*pair) for pair in zip(given.clients, given.tests, strict=True)]
    return Records("standardised", tuple(client for client, _ in pairs), tuple(test for _, test in pairs))


def cross_validate(published: Published, records: Records, learning_rate: float, draws: int) -> float:
    """Accuracy on held-out training rows, mean over hospitals and draws. Every row is predicted without its fold."""
    clients = records.clients
    folds = [np.random.RandomState(client).permutation(len(data)) % FOLDS for client, data in enumerate(clients)]
    right = np.zeros(len(clients))
    for fold in list(range(FOLDS)) * draws:
        kept = [_chosen(data, of != fold) for data, of in zip(clients, folds, strict=True)]
        module = federation(kept, flamby.mechanisms(published), learning_rate, os.urandom, clear_sum)
        held = [_chosen(data, of == fold) for data, of in zip(clients, folds, strict=True)]
        right += [accuracy(module, data) * len(data) for data in held]
    return float((right / draws / [len(data) for data in clients]).mean())


class _Checked:
    """Masked sums, each compared with the clear one."""

    def __init__(self) -> None:
        self.largest = 0.0

    def __call__(self, updates: Vectors) -> NDArray[np.float64]:
        total = masked_sum(updates)
        self.largest = max(self.largest, float(np.abs(total - clear_sum(updates)).max()))
        if self.largest > len(updates) * _encoding(len(total)).step:
            raise AssertionError("a masked sum is not the sum: accuracies mean nothing")
        return total


def _point(published: Published, seeds: Sequence[int]) -> Point:
    scores = {records.scaling: score(published, records, seeds) for records in (clinical(), standardised())}
    return Point(published, flamby.epsilons(published), flamby.unamplified(published), scores)


def _encoding(dimension: int) -> FixedPoint:
    return FixedPoint(dimension, BOUND, len(CLIENTS))


def _standardised(client: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    mean, deviation = client.features.mean(axis=0), client.features.std(axis=0, ddof=1) + np.float32(1e-9)
    scaled = [Dataset((data.features - mean) / deviation, data.labels) for data in (client, test)]
    return scaled[0], scaled[1]


def _chosen(data: Dataset, rows: NDArray[np.bool_]) -> Dataset:
    return Dataset(data.features[rows], data.labels[rows])


def _draw(points: Sequence[Point]) -> None:
    worst, least = [max(one.epsilons) for one in points], [min(one.epsilons) for one in points]
    lines = {
        "securefl, scaled by clinical constants": [one.scores["clinical"].hospitals for one in points],
        "securefl, scaled as FLamby scales": [one.scores["standardised"].hospitals for one in points],
        "FLamby, had it sampled as it was accounted": [one.published.accuracy for one in points],
    }
    theirs = [(one.published.nominal, one.unamplified) for one in points]
    heart_dp_figure.draw(FIGURE, least, worst, lines, theirs)


def _rows(one: Point, quick: bool) -> list[Row]:
    """``nominal_1`` is what stands at FLamby's axis; ratios are of accuracies."""
    name, theirs = f"nominal_{one.published.nominal:g}", float(np.mean(one.published.accuracy))
    found = [
        value_row(f"{name}_epsilon", max(one.epsilons), "", quick),
        value_row(f"{name}_epsilon_least_hospital", min(one.epsilons), "", quick),
        value_row(f"{name}_epsilon_unamplified", one.unamplified, "", quick),
    ]
    for scaling, ours in one.scores.items():
        mean = float(np.mean(ours.hospitals))
        found.append(Row(f"{name}_{scaling}", mean, "", "FLamby", theirs, mean / theirs, None, None, quick))
        found.append(value_row(f"{name}_{scaling}_deviation", float(np.std(ours.hospitals)), "", quick))
        found.append(value_row(f"{name}_{scaling}_pooled", float(np.mean(ours.pooled)), "", quick))
    return found


def main() -> None:
    """Print the cross-validated accuracy of each learning rate at nominal epsilon 1; no test row is read."""
    torch.set_num_threads(1)
    for records in (clinical(), standardised()):
        for learning_rate in LEARNING_RATES:
            found = cross_validate(PUBLISHED[1], records, learning_rate, draws=2)
            print(f"{records.scaling} {learning_rate:g}: {found:.4f}", flush=True)


if __name__ == "__main__":
    main()
