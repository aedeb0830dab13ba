"""What attacks on one client's update share: a victim unlike the others, its true update, and how much of it is known.

The victim holds zeros and ones, the others all digits, so that the mean of all updates is not a good guess by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl import training, vector
from securefl.attacks.cell import Figure, Verdict
from securefl.attacks.pictures import private_digits
from securefl.attacks.scene import Vector, federation
from securefl.data import Dataset
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import SGD

RATE: Final = 0.5
"""The learning rate of these federations."""

KNOWN: Final = 0.9
"""Share of an update from which it is known: who inverts it gets what the update itself would give."""

HINTED: Final = 0.25
"""Share below which the attack failed: a quarter is what a sum of four unrelated updates, equally long, has of each."""

_RECORDS: Final = 40


def odd_one_out(others: int = 4) -> dict[str, Dataset]:
    """Records by client, 40 each: the victim's are zeros and ones."""
    digits = private_digits()
    odd = np.flatnonzero(digits.labels <= 1)[:_RECORDS]
    rest = np.setdiff1d(np.arange(len(digits)), odd)
    parts = [rest[start * _RECORDS : (start + 1) * _RECORDS] for start in range(others)]
    return federation(_rows(digits, odd), [_rows(digits, part) for part in parts])


def linear() -> nn.Module:
    """Softmax regression on digits: 650 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def true_update(factory: Callable[[], nn.Module], start: NDArray[np.float32], data: Dataset) -> Vector:
    """What one step on all of ``data`` does to the model at ``start``, without clip and noise; shape (dimension,)."""
    module = vector.build(factory, 0)
    vector.load(module, start)
    return training.train(module, data, SGD(1.0, 1), LocalOptimizer(RATE)).astype(np.float64)


def recovered(guess: Vector | None, truth: Vector) -> float:
    """How much of ``truth`` a guess has, 0 to 1: the share of its squared length along the guess, of whatever scale."""
    if guess is None:
        return 0.0
    lengths = float(np.dot(guess, guess) * np.dot(truth, truth))
    return float(np.dot(guess, truth)) ** 2 / lengths if lengths > 0 else 0.0


def graded(share: float) -> Verdict:
    """Of the share of the victim's update that the adversary has."""
    return "red" if share >= KNOWN else "amber" if share >= HINTED else "green"


def share_figure(name: str, value: float) -> Figure:
    return Figure(name, value, "share")


def _rows(data: Dataset, rows: NDArray[np.int64]) -> Dataset:
    return Dataset(data.features[rows], data.labels[rows])
