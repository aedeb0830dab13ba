"""Rounds to a target on skewed clients, for each strategy: digits (scikit-learn), ten clients, Dirichlet 0.1 and 0.5.

Learning rates are chosen by the last fifth of each client's training rows, pooled, never by test rows; then each
strategy runs under ``secagg`` over three seeds of split and start. A row is the median of the rounds that were needed
until the public test set's accuracy reached the target; ``-1`` where most runs did not reach it within 60 rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.rows import Row, value_row
from securefl import SGD, Client, Dataset, LocalOptimizer, Plain, SecAgg, Server, evaluation, vector
from securefl.learning import Strategy
from securefl.partition import Rows, dirichlet
from securefl.protection import Protection
from securefl.round import federate

TITLE = "Rounds to 90 % on digits, ten skewed clients"
TARGET: Final = 0.90
ROUNDS: Final = 60
SEEDS: Final = (1, 2, 3)
CLIENTS: Final = 10
_STEPS: Final = SGD(sampling_rate=0.2, steps=10)
_MOST: Final = 300  # of few local steps
_TRIED: Final = 15  # rounds in which rates are compared
_RATES: Final = {
    "fedavg": ((0.03, 0.1, 0.3), (1.0,)),
    "fedprox": ((0.03, 0.1, 0.3), (1.0,)),
    "fedavgm": ((0.03, 0.1, 0.3), (0.3, 1.0)),
    "fedadam": ((0.03, 0.1), (0.01, 0.03, 0.1)),
    "fedyogi": ((0.03, 0.1), (0.01, 0.03, 0.1)),
    "fedadagrad": ((0.03, 0.1), (0.01, 0.03, 0.1)),
    "scaffold": ((0.03, 0.1, 0.3), (1.0,)),
}


def network() -> nn.Module:
    """An MLP of 64-64-10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def strategy(kind: str, rate: float) -> Strategy:
    """The strategy at this server's rate; FedProx is FedAvg at the server."""
    match kind:
        case "fedavg" | "fedprox":
            return Strategy("fedavg", rate)
        case "scaffold":
            return Strategy("scaffold", rate)
        case "fedavgm":
            return Strategy("fedavgm", rate, 0.9)
        case "fedadagrad":
            return Strategy("fedadagrad", rate, 0.9, 0.0, 1e-3)
        case "fedyogi":
            return Strategy("fedyogi", rate, 0.9, 0.99, 1e-3)
        case _:
            return Strategy("fedadam", rate, 0.9, 0.99, 1e-3)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    torch.set_num_threads(1)
    return [*_rows(quick), *_by_steps(quick)]


def _rows(quick: bool) -> Iterator[Row]:
    for alpha in (0.5,) if quick else (0.1, 0.5):
        for kind in ("fedavg", "fedadam", "scaffold") if quick else _RATES:
            local, outer = _chosen(kind, alpha)
            needed = [_needed(kind, alpha, local, outer, seed) for seed in SEEDS[: 1 if quick else 3]]
            found = median(needed)
            name = f"rounds_dirichlet_{alpha:g}_{kind}"
            yield value_row(name, -1 if found > ROUNDS else found, f"rounds ({local:g}, {outer:g})", quick)


def _by_steps(quick: bool) -> Iterator[Row]:
    """More local work a round, at the rate that is best for FedAvg: rounds, and local steps in all."""
    local, outer = _chosen("fedavg", 0.5)
    for steps in (1, 10) if quick else (1, 5, 10, 20, 50):
        needed = median(
            _needed("fedavg", 0.5, local, outer, seed, SGD(0.2, steps), _MOST) for seed in SEEDS[: 1 if quick else 3]
        )
        found = -1 if needed > _MOST else needed
        yield value_row(f"rounds_with_{steps}_local_steps", found, f"rounds, {found * steps:g} steps", quick)


def _needed(
    kind: str,
    alpha: float,
    local: float,
    outer: float,
    seed: int,
    mechanism: SGD = _STEPS,
    most: int = ROUNDS,
) -> int:
    training, _, test = _split(alpha, seed)
    accuracies = _run(kind, local, outer, training, test, seed, most, SecAgg(), mechanism)
    for number, accuracy in enumerate(accuracies, start=1):
        if accuracy >= TARGET:
            return number
    return most + 1


def _chosen(kind: str, alpha: float) -> tuple[float, float]:
    """Rates with the best accuracy on left-out training rows after a few rounds, unprotected to save time."""
    training, left_out, _ = _split(alpha, 0)

    def after(rates: tuple[float, float]) -> float:
        return max(_run(kind, *rates, training, left_out, 0, _TRIED, Plain()))

    return max(product(*_RATES[kind]), key=after)


def _run(
    kind: str,
    local: float,
    outer: float,
    training: list[Dataset],
    measured: Dataset,
    seed: int,
    rounds: int,
    shield: Protection,
    mechanism: SGD = _STEPS,
) -> Iterator[float]:
    """Accuracies after each round."""
    optimizer = LocalOptimizer(local, proximal=0.1 if kind == "fedprox" else 0.0)
    server = Server(network, shield, mechanism, optimizer, rounds=rounds, strategy=strategy(kind, outer), seed=seed)
    clients = [Client(f"client-{i}", data, network) for i, data in enumerate(training)]
    for _ in federate(server, clients):
        model = server.model()
        if model is None or not np.isfinite(model).all():
            yield 0.0
            continue
        module = vector.build(network, seed)
        vector.load(module, model)
        yield evaluation.accuracy(module, measured)


def _split(alpha: float, seed: int) -> tuple[list[Dataset], Dataset, Dataset]:
    """Each client's training rows, the rows left out of them (pooled), and the test rows: every fifth."""
    from sklearn.datasets import load_digits

    found = load_digits()
    features, labels = (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    order = np.random.RandomState(0).permutation(len(labels))
    held, rest = order[::5], np.setdiff1d(order, order[::5])
    parts = next(
        parts
        for trial in range(1000)
        if min(map(len, parts := _parts(labels[rest], alpha, 1000 * seed + trial)), default=0) >= 10
    )
    kept = [rest[part[np.arange(len(part)) % 5 != 4]] for part in parts]
    left_out = np.concatenate([rest[part[4::5]] for part in parts])
    training = [Dataset(features[part], labels[part]) for part in kept]
    return training, Dataset(features[left_out], labels[left_out]), Dataset(features[held], labels[held])


def _parts(labels: NDArray[np.int64], alpha: float, seed: int) -> list[Rows]:
    from securefl.errors import BadInput

    try:
        return list(dirichlet(labels, CLIENTS, alpha, seed))
    except BadInput:
        return []
