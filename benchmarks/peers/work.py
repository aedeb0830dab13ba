"""The work that federated simulators are given, made the same in every environment: numpy and torch only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

CLIENTS, RECORDS, COHORT, BATCH, RATE = 100, 50, 20, 10, 0.1
CLASSES: Final = {"tabular": 2, "mlp": 10, "cnn": 10}


def model(kind: str) -> nn.Module:
    """13-16-2; 784-128-10; or the convolutional network of Opacus's MNIST example, 26,010 parameters."""
    torch.manual_seed(0)
    if kind == "tabular":
        return nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 2))
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1)),
        *(nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1)),
        *(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


@cache
def records(kind: str) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each client's: features at random, and labels that a linear rule gives them, so that there is what to learn. Made
    once a process."""
    drawn, shape = np.random.default_rng(0), (13,) if kind == "tabular" else (1, 28, 28)
    rule = drawn.normal(size=(int(np.prod(shape)), CLASSES[kind]))
    features = drawn.random((CLIENTS, RECORDS, *shape), np.float32)
    labels = ((features.reshape(CLIENTS, RECORDS, -1) - 0.5) @ rule).argmax(-1)
    return list(zip(features, labels.astype(np.int64), strict=True))


def loss(module: nn.Module, kind: str) -> float:
    """The mean loss on everybody's records, to see that a model was trained."""
    features, labels = (np.concatenate(part) for part in zip(*records(kind), strict=True))
    with torch.no_grad():
        outputs = module(torch.from_numpy(features))
        return float(nn.functional.cross_entropy(outputs, torch.from_numpy(labels)))


def descend(module: nn.Module, features: torch.Tensor, labels: torch.Tensor) -> None:
    """One epoch of plain SGD in batches, in a new order."""
    descent = torch.optim.SGD(module.parameters(), lr=RATE)
    for rows in torch.randperm(len(labels)).split(BATCH):
        descent.zero_grad()
        nn.functional.cross_entropy(module(features[rows]), labels[rows]).backward()
        descent.step()


def serve(version: str, works: Callable[[str, int], tuple[list[float], float]]) -> None:
    """Answer lines of ``{"model": kind, "rounds": n}`` with seconds a round and the loss in the end, until they end.

    What else the peer prints goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    print(json.dumps(version), file=answers, flush=True)
    for line in _lines():
        seconds, after = works(line["model"], line["rounds"])
        print(json.dumps({"seconds": seconds, "loss": after}), file=answers, flush=True)


def _lines() -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in sys.stdin)
