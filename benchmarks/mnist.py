"""MNIST at the settings that Opacus publishes for epsilon 2.30: central DP-SGD, and ten clients by secure aggregation.

Central (pytorch/opacus, ``examples/mnist.py`` and its README): their network and public scaling, noise multiplier 1.1,
clip 1, learning rate 0.15, sampling rate 240 / 60000, 60 epochs; their accuracy is the mean of ten runs, 96.78 +- 0.21.

Federated: ten clients with 6,000 shuffled records each; the same noise multiplier, rate and 15,000 steps at each, so
that each client's epsilon is the same. A step has 24 records on average: in the mean of ten updates the noise is
sqrt(10) times that of the central model. The learning rate is a third for that reason; it was not tuned.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from benchmarks.rows import Row, value_row
from securefl import Budget, Client, Dataset, LocalOptimizer, SecAgg, Server, federate, training, vector
from securefl.errors import DataUnavailable
from securefl.evaluation import accuracy
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD
from securefl.records import RoundRecord

TITLE = "MNIST, DP-SGD at noise multiplier 1.1 and rate 0.004, epsilon at delta 1e-5"
DELTA, EPOCHS = 1e-5, 60
# One epoch, and one round: 250 steps at rate 1 / 250.
EPOCH = DPSGD(noise_multiplier=1.1, sampling_rate=240 / 60_000, steps=250, clip=1.0)
CENTRAL, FEDERATED = LocalOptimizer(0.15), LocalOptimizer(0.05)
CLIENTS = 10
PUBLISHED, WITHIN = 96.78, 0.5  # percent
MEAN, DEVIATION = np.float32(0.1307), np.float32(0.3081)  # of pixels from 0 to 1, as published with the example

# SHA-256 of what is in the archives: how it was compressed does not matter.
_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def rows(quick: bool) -> list[Row]:
    """The rows of this subject: 60 epochs, or one (which shows that it runs, and has no goal)."""
    torch.set_num_threads(1)
    epochs = 1 if quick else EPOCHS
    central = 100 * central_accuracy(epochs)
    *_, last = track(federated(epochs), "federated rounds", epochs, transient=True)
    if last.accuracy is None:
        raise AssertionError("the server had a test set and gave no accuracy")
    goal = None if quick else WITHIN
    spent = accountant.epsilon([EPOCH] * epochs, DELTA)
    return [
        value_row("central_epsilon", spent, "", quick),
        _beside_published("central_accuracy", central, quick),
        value_row("central_points_from_published", abs(PUBLISHED - central), "%", quick, goal),
        value_row("federated_epsilon_most_of_clients", max(last.epsilon.values()), "", quick),
        _beside_published("federated_accuracy", 100 * last.accuracy, quick),
        value_row("federated_contributors_last_round", len(last.contributors), "", quick),
    ]


def central_accuracy(epochs: int) -> float:
    """On the test images, of a model trained in one place."""
    module, data = vector.build(network, seed=0), records("train")
    for _ in track(range(epochs), "central epochs", transient=True):
        update = training.train(module, data, EPOCH, CENTRAL)
        vector.load(module, vector.flatten(module) + update)
    return accuracy(module, records("t10k"))


def federated(rounds: int) -> Iterator[RoundRecord]:
    """The rounds of ten clients: masks, ledgers and budgets as in any run. Shuffled records, as many each."""
    data, budget = records("train"), Budget(epsilon=3.0, delta=DELTA)
    parts = np.array_split(np.random.RandomState(0).permutation(len(data)), CLIENTS)
    clients = [
        Client(f"client-{i}", Dataset(data.features[part], data.labels[part]), network, budget=budget)
        for i, part in enumerate(parts)
    ]
    server = Server(network, SecAgg(), EPOCH, FEDERATED, rounds=rounds, test=records("t10k"))
    return federate(server, clients)


def network() -> nn.Module:
    """The network of Opacus's example: 26,010 parameters, images of 28 by 28 in one channel."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2, stride=1)),
        *(nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.MaxPool2d(2, stride=1)),
        *(nn.Flatten(), nn.Linear(32 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def records(part: str) -> Dataset:
    """``train`` or ``t10k``, from ``$SECUREFL_DATA/mnist``. Raises ``DataUnavailable`` where that has them not."""
    pixels = _content(f"{part}-images-idx3-ubyte")[16:].reshape(-1, 1, 28, 28)
    labels = _content(f"{part}-labels-idx1-ubyte")[8:]
    scaled = (pixels / np.float32(255) - MEAN) / DEVIATION
    return Dataset(scaled.astype(np.float32), labels.astype(np.int64))


def _content(file: str) -> NDArray[np.uint8]:
    folder = Path(os.environ.get("SECUREFL_DATA", "")) / "mnist"
    try:
        content = gzip.decompress((folder / f"{file}.gz").read_bytes())
    except OSError as error:
        raise DataUnavailable(
            f"{folder}/{file}.gz cannot be read ({error}): put MNIST's four files into the folder mnist "
            "of one that SECUREFL_DATA names"
        ) from error
    if hashlib.sha256(content).hexdigest() != _FILES[file]:
        raise DataUnavailable(f"{folder}/{file}.gz is not MNIST's original: replace it by that")
    return np.frombuffer(content, np.uint8)


def _beside_published(name: str, percent: float, quick: bool) -> Row:
    """Its ratio is of accuracies."""
    return Row(name, percent, "%", "Opacus, published", PUBLISHED, percent / PUBLISHED, None, None, quick)
