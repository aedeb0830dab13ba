"""Heart disease at four hospitals without differential privacy, beside every strategy that FLamby published.

Du Terrail et al., NeurIPS 2022, Fed-Heart-Disease: accuracy on all test rows, and the mean of the hospitals' own. Rows
and split are theirs, scaling is by the pilot's public constants; updates are added up by secure aggregation. Weights,
learning rate and steps come from cross-validation on training rows (``python -m benchmarks.heart``). Training starts
from zero and takes every record in every step: what differs from run to run is how the encoding rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.heart_dp import TEST_ROWS, clinical
from benchmarks.rows import Row, value_row
from securefl import Client, LocalOptimizer, SecAgg, Server, federate, training, vector
from securefl.data import Dataset
from securefl.evaluation import accuracy
from securefl.pilots.heart import CLIENTS, PILOT
from securefl.privacy.mechanism import SGD

TITLE = "Heart disease at four hospitals, under secagg, without differential privacy: accuracy on test rows"

# FLamby's own rows, on its own CSV files, five seeds: (pooled test rows, mean of the four hospitals).
PUBLISHED: Final[Mapping[str, tuple[float, float]]] = {
    "pooled training": (0.795, 0.735),
    "FedAvg": (0.748, 0.685),
    "FedAdam": (0.779, 0.726),
    "FedYogi, FedAdagrad": (0.779, 0.731),
    "Cyclic": (0.785, 0.718),
}
BEST_AGGREGATED: Final = "FedYogi, FedAdagrad"
SEEDS, ROUNDS, FOLDS, REPEATS = 5, 12, 5, 3

WEIGHTS: Final[Mapping[str, tuple[float, ...]]] = {
    "equal": (1.0, 1.0, 1.0, 1.0),
    "root of rows": (1.0, 0.93, 0.39, 0.65),
    "rows": PILOT.weights,
}


class Choice(NamedTuple):
    """How the federation is trained."""

    weights: str
    steps: int
    learning_rate: float


GRID: Final = tuple(Choice(*one) for one in product(WEIGHTS, (1, 5, 20), (0.1, 0.3, 1.0)))
# The first of the grid by (pooled + mean of hospitals) / 2 on held-out training rows: .789 and .828.
CHOSEN: Final = Choice("equal", 1, 1.0)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject: ours beside each of FLamby's, and their deviation over seeds."""
    torch.set_num_threads(1)
    found = np.array([protected(seed) for seed in range(1 if quick else SEEDS)])
    means, deviations = found.mean(axis=0), found.std(axis=0)
    return [
        *(row for name, one in PUBLISHED.items() for row in _beside(name, means, one, quick)),
        value_row("pooled_test", float(means[0]), "", quick),
        value_row("mean_of_clients", float(means[1]), "", quick),
        value_row("pooled_test_deviation", float(deviations[0]), "", quick),
        value_row("mean_of_clients_deviation", float(deviations[1]), "", quick),
    ]


def protected(seed: int, choice: Choice = CHOSEN) -> tuple[float, float]:
    """Accuracy on all test rows, and the mean of the hospitals' own, after whole rounds of secure aggregation."""
    records = clinical()
    clients = [Client(name, data, PILOT.model) for name, data in zip(CLIENTS, records.clients, strict=True)]
    weights = dict(zip(CLIENTS, WEIGHTS[choice.weights], strict=True))
    mechanism, optimizer = SGD(sampling_rate=1.0, steps=choice.steps), LocalOptimizer(choice.learning_rate)
    server = Server(PILOT.model, SecAgg(), mechanism, optimizer, rounds=ROUNDS, weights=weights, seed=seed)
    for record in federate(server, clients):
        if len(record.contributors) != len(CLIENTS):
            raise AssertionError(f"{record}: nobody was to drop out")
    parameters = server.model()
    if parameters is None:
        raise AssertionError("under secagg the server reads the model")
    module = vector.build(PILOT.model, seed)
    vector.load(module, parameters)
    return scores([accuracy(module, test) for test in records.tests], TEST_ROWS)


def scores(each: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Over all rows, and over hospitals, of the hospitals' accuracies and their numbers of rows."""
    return float(np.average(each, weights=counts)), float(np.mean(each))


def cross_validate(choice: Choice, repeats: int = REPEATS) -> tuple[float, float]:
    """The same two on held-out training rows, each predicted without its fold; simulated without protocol."""
    found = [_folded(choice, repeat) for repeat in range(repeats)]
    pooled, hospitals = np.mean(found, axis=0)
    return float(pooled), float(hospitals)


def _folded(choice: Choice, repeat: int) -> tuple[float, float]:
    clients = clinical().clients
    folds = [
        np.random.RandomState(100 * repeat + hospital).permutation(len(data)) % FOLDS
        for hospital, data in enumerate(clients)
    ]
    pairs, right = list(zip(clients, folds, strict=True)), np.zeros(len(clients))
    for fold in range(FOLDS):
        module = _simulated(choice, [_chosen(data, of != fold) for data, of in pairs])
        held = [_chosen(data, of == fold) for data, of in pairs]
        right += [accuracy(module, data) * len(data) for data in held]
    counts = [len(data) for data in clients]
    return scores((right / counts).tolist(), counts)


def _simulated(choice: Choice, clients: Sequence[Dataset]) -> torch.nn.Module:
    module, optimizer = vector.build(PILOT.model, seed=0), LocalOptimizer(choice.learning_rate)
    for _ in range(ROUNDS):
        updates = [training.train(module, data, SGD(1.0, choice.steps), optimizer) for data in clients]
        mean = np.average(np.stack(updates), axis=0, weights=WEIGHTS[choice.weights]).astype(np.float32)
        vector.load(module, vector.flatten(module) + mean)
    return module


def _chosen(data: Dataset, which: NDArray[np.bool_]) -> Dataset:
    return Dataset(data.features[which], data.labels[which])


def _beside(name: str, ours: NDArray[np.float64], theirs: tuple[float, float], quick: bool) -> Iterator[Row]:
    """Ratios of accuracies; the goal is to be level with the best strategy that aggregates at a server."""
    goal = 1.0 if name == BEST_AGGREGATED else None
    for measure, own, other in zip(("pooled_test", "mean_of_clients"), ours.tolist(), theirs, strict=True):
        met = None if goal is None else own >= other
        yield Row(f"{measure} beside {name}", own, "", "FLamby", other, own / other, goal, met, quick)


def main() -> None:
    """Print what cross-validation says of the grid, best first; no test row is read."""
    torch.set_num_threads(1)
    found = [(cross_validate(choice), choice) for choice in GRID]
    for (pooled, hospitals), choice in sorted(found, key=lambda one: -sum(one[0])):
        print(f"pooled {pooled:.4f}  hospitals {hospitals:.4f}  {choice}")


if __name__ == "__main__":
    main()
