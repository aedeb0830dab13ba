"""Choose a pilot's recipes: ``python -m benchmarks.tune PILOT`` cross-validates a grid and prints the best.

The federation is simulated without cryptography: every round each client trains, and the weighted mean of the updates
moves the model. Folds are of training rows; test rows are read only under ``--report``, which measures the recipes that
the pilot already has.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import evaluation, objective, pilots, training, vector
from securefl.data import Dataset
from securefl.errors import TrainingFailed
from securefl.evaluation import accuracy, centralised_accuracy
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.privacy.noise import Random

FOLDS = 5
# Of the budget that a run is planned to use: it leaves no room for another round, and room for rounding the noise up.
_SHARE = 0.97
_FINALISTS = 5


@dataclass(frozen=True)
class Score:
    """The pilot's metric on held-out training rows over all folds, mean and deviation over draws of noise, an error as
    its negative; and the mean loss.
    """

    recipe: Recipe
    mean: float
    deviation: float
    loss: float

    @property
    def unlucky(self) -> float:
        """What one run in forty falls below: a pilot is judged by its worst runs."""
        return self.mean - 2 * self.deviation

    def __str__(self) -> str:
        return f"unlucky {self.unlucky:.4f}  mean {self.mean:.4f}  loss {self.loss:.4f}  {self.recipe}"


def simulate(pilot: Pilot, recipe: Recipe, clients: Sequence[Dataset], random: Random = os.urandom) -> nn.Module:
    """The global model after all rounds over these clients' records; noise and sampling are read from ``random``."""
    module = vector.build(pilot.model, seed=0)
    for _ in range(recipe.rounds):
        updates = [training.train(module, data, recipe.mechanism, recipe.optimizer, random) for data in clients]
        mean = np.average(np.stack(updates), axis=0, weights=pilot.weights).astype(np.float32)
        vector.load(module, vector.flatten(module) + mean)
    return module


def cross_validate(pilot: Pilot, recipe: Recipe, draws: int) -> Score:
    """Every training row is predicted by a federation that trained without its fold, ``draws`` times."""
    clients = [pilot.load(client) for client in pilot.clients]
    results = np.array([[_held_out(pilot, recipe, clients, fold) for fold in range(FOLDS)] for _ in range(draws)])
    good, loss = results.sum(axis=1).T / sum(len(data) for data in clients)
    return Score(recipe, float(good.mean()), float(good.std()), float(loss.mean()))


def private_recipes(budget: Budget) -> Iterator[Recipe]:
    """The grid under DP-SGD. Rate 1 needs least noise at these sizes; learning rates are in units of 1 / clip."""
    for rounds, steps in ((10, 1), (10, 3), (15, 1), (15, 2)):
        for clip in (0.3, 1.0):
            for length in (1.0, 2.0, 4.0, 8.0):
                mechanism = DPSGD(_noise_multiplier(rounds, steps, budget), sampling_rate=1.0, steps=steps, clip=clip)
                yield Recipe(mechanism, LocalOptimizer(round(length / clip, 2)), rounds)


def public_recipes() -> Iterator[Recipe]:
    """The grid without differential privacy; at rate 1 it is deterministic."""
    for steps in (1, 3, 10, 20):
        for learning_rate in (0.1, 0.3, 1.0, 2.0):
            for momentum in (0.0, 0.9):
                yield Recipe(SGD(sampling_rate=1.0, steps=steps), LocalOptimizer(learning_rate, momentum), rounds=10)


def best(pilot: Pilot, recipes: Iterable[Recipe], draws: int) -> Score:
    """The recipe whose unlucky runs are best by the pilot's metric, then the one of least loss; every score is printed.

    The finalists are scored again with fresh and more draws, so that no recipe wins by its luck in the first round.
    """
    finalists = _ranked(pilot, recipes, draws)[:_FINALISTS]
    return _ranked(pilot, (score.recipe for score in finalists), 2 * draws)[0]


def report(pilot: Pilot, draws: int) -> None:
    """Print the public test accuracy of the pilot's own recipes. Nothing is chosen from it."""
    clients, test = [pilot.load(client) for client in pilot.clients], pilot.test()
    private = [goodness(pilot, simulate(pilot, pilot.private, clients), test) for _ in range(draws)]
    spent = accountant.epsilon([pilot.private.mechanism] * pilot.private.rounds, pilot.budget.delta)
    print(f"{pilot.name}, {draws} draws of noise, {len(test)} test rows; {pilot.metric}, an error as its negative")
    print(f"private  worst {min(private):.4f}  mean {np.mean(private):.4f}  epsilon {spent:.3f} of {pilot.budget}")
    print(f"public   {goodness(pilot, simulate(pilot, pilot.public, clients), test):.4f}")
    print(f"twin     {centralised_accuracy(pilot.model, 0, clients, test, pilot.public):.4f} (accuracy)")


def goodness(pilot: Pilot, module: nn.Module, data: Dataset) -> float:
    """The pilot's metric of this model on these rows, so that more is better: an error is negative."""
    if pilot.metric == "accuracy":
        return accuracy(module, data)
    found = evaluation.metrics(module, data, 1.0 if pilot.scale is None else pilot.scale.size)
    return -found["mae"] if pilot.metric == "mae" else found["auc"]


def _ranked(pilot: Pilot, recipes: Iterable[Recipe], draws: int) -> list[Score]:
    scores = []
    for recipe in recipes:
        scores.append(cross_validate(pilot, recipe, draws))
        print(scores[-1], flush=True)
    return sorted(scores, key=lambda score: (-score.unlucky, score.loss))


def _held_out(pilot: Pilot, recipe: Recipe, clients: Sequence[Dataset], fold: int) -> tuple[float, float]:
    """The metric on the fold, times its rows, and their summed loss. Nothing but the worst where training diverges."""
    folds = [np.random.RandomState(client).permutation(len(data)) % FOLDS for client, data in enumerate(clients)]
    pairs = list(zip(clients, folds, strict=True))
    held = _pooled([_rows(data, of == fold) for data, of in pairs])
    try:
        module = simulate(pilot, recipe, [_rows(data, of != fold) for data, of in pairs])
        good = goodness(pilot, module, held)
    except (TrainingFailed, KeyError):  # the step was too long: not a candidate
        return -math.inf, math.inf
    with torch.no_grad():
        losses = objective.losses(module(torch.from_numpy(held.features)), torch.from_numpy(held.labels))
    return good * len(held), float(losses.sum())


def _pooled(parts: Sequence[Dataset]) -> Dataset:
    return Dataset(np.concatenate([data.features for data in parts]), np.concatenate([data.labels for data in parts]))


def _rows(data: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    return Dataset(data.features[chosen], data.labels[chosen])


@cache
def _noise_multiplier(rounds: int, steps: int, budget: Budget) -> float:
    """The smallest noise multiplier, to two digits, that spends the planned share of the budget at rate 1."""
    low, high = 0.1, 100.0
    while high - low > 0.002:
        middle = (low + high) / 2
        spent = accountant.epsilon([DPSGD(middle, sampling_rate=1.0, steps=steps)] * rounds, budget.delta)
        low, high = (low, middle) if spent <= _SHARE * budget.epsilon else (middle, high)
    return round(high + 0.005, 2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__.splitlines()[0])
    parser.add_argument("pilot", choices=pilots.names())
    parser.add_argument("--draws", type=int, default=30, help="draws of noise and sampling for each private recipe")
    parser.add_argument("--kind", choices=("private", "public"), help="only these recipes")
    parser.add_argument("--report", action="store_true", help="measure the pilot's recipes on its public test set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pilot = pilots.pilot(arguments.pilot)
    if arguments.report:
        report(pilot, arguments.draws)
        return
    if arguments.kind != "public":
        print(f"private: {best(pilot, private_recipes(pilot.budget), arguments.draws)}\n")
    if arguments.kind != "private":
        print(f"public:  {best(pilot, public_recipes(), draws=1)}\n")


if __name__ == "__main__":
    main()
