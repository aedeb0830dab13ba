"""McMahan et al. (AISTATS 2017, table 2): rounds until the CNN reaches 99 % on MNIST, a tenth of 100 clients a round.

Theirs, from the paper: FedSGD 626 rounds (IID) and 483 (two shards each); E=5, B=10: 20 and 229. Local epochs are
Poisson samples at rate B / 600 here, 600 / B steps an epoch, in place of shuffled batches. As in the paper a curve is
made monotonic (the best so far). The learning rate is the one of ``RATES`` that did best on 6,000 left-out training
images after three rounds: ``python -m benchmarks.mcmahan`` tries them. A run that does not get there in its time is
reported with the accuracy that it reached.

``python -m benchmarks mcmahan`` takes hours on two cores: each run ends after MINUTES at the latest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from benchmarks.rows import Row, value_row
from securefl import SGD, Client, Dataset, LocalOptimizer, Plain, SecAgg, Server
from securefl.learning import Cohort
from securefl.pilots import mnist, pilot
from securefl.plan import PrivacyTerms
from securefl.protection import Protection
from securefl.round import federate

TITLE = "Rounds to 99 % on MNIST: McMahan et al., CNN, C = 0.1"
TARGET: Final = 0.99
MINUTES: Final = float(os.environ.get("SECUREFL_MINUTES", "60"))  # of each run
RATES: Final = (0.05, 0.1, 0.2)
_RATE: Final = 0.2  # .9638, .9688 and .9720 of them are right
_LEFT_OUT: Final = 60  # of each client's 600 images
_SEED: Final = 17  # of cohorts and samples, so that protections are compared over the same


def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    return list(_rows(quick))


def _rows(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    runs: tuple[tuple[str, str, SGD, Protection, float | None], ...] = (
        ("iid_e5_b10", "mnist", SGD(1 / 60, 300), Plain(), 30),
        ("iid_e5_b10_secagg", "mnist", SGD(1 / 60, 300), SecAgg(), 30),
        ("noniid_e5_b10", "mnist-shards", SGD(1 / 60, 300), Plain(), None),
        ("iid_fedsgd", "mnist", SGD(1.0, 1), Plain(), None),
    )
    for name, data, mechanism, shield, goal in runs[1:2] if quick else runs:
        reached, best, done = _run(data, mechanism, shield)
        if reached is not None:
            yield value_row(f"rounds_to_99_{name}", reached, "rounds", quick, goal)
        else:
            yield value_row(f"rounds_to_99_{name}", float("inf"), "rounds", quick, goal)
            yield value_row(f"accuracy_{name}_after_{done}", best, "", quick)


def _run(data: str, mechanism: SGD, shield: Protection) -> tuple[int | None, float, int]:
    """The round that reached the target, if one did in time; the best accuracy, and the rounds that were run."""
    found = pilot(data)
    server = Server(
        mnist.convolutional,
        shield,
        mechanism,
        LocalOptimizer(_RATE),
        rounds=1000,
        test=found.test(),
        privacy=PrivacyTerms(simulated=True),
        cohort=Cohort("fixed", 10),
        sampling=_SEED,
    )
    clients = [Client(name, found.load(name), mnist.convolutional, seed=_SEED) for name in found.clients]
    best, until = 0.0, time.monotonic() + 60 * MINUTES
    number = 0
    for record in federate(server, clients):
        number, best = record.round, max(best, record.accuracy or 0.0)
        print(f"{data} {shield.kind} round {number}: {record.accuracy:.4f}, {record.seconds:.0f} s", flush=True)
        if best >= TARGET:
            return number, best, number
        if time.monotonic() > until:
            break
    return None, best, number


def tried(rate: float, rounds: int = 3) -> float:
    """The accuracy on left-out training images after a few rounds at this learning rate, E=5 and B=10."""
    found = pilot("mnist")
    data = {name: found.load(name) for name in found.clients}
    kept = {name: Dataset(one.features[_LEFT_OUT:], one.labels[_LEFT_OUT:]) for name, one in data.items()}
    left = Dataset(
        np.concatenate([one.features[:_LEFT_OUT] for one in data.values()]),
        np.concatenate([one.labels[:_LEFT_OUT] for one in data.values()]),
    )
    server = Server(
        mnist.convolutional,
        Plain(),
        SGD(1 / 54, 270),
        LocalOptimizer(rate),
        rounds=rounds,
        test=left,
        privacy=PrivacyTerms(simulated=True),
        cohort=Cohort("fixed", 10),
        sampling=_SEED,
    )
    clients = [Client(name, one, mnist.convolutional, seed=_SEED) for name, one in kept.items()]
    return [record.accuracy or 0.0 for record in federate(server, clients)][-1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in RATES:
        print(f"learning rate {each}: {tried(each):.4f} of the left-out images", flush=True)
