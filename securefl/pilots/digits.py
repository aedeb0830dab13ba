"""Handwritten digits of 8 by 8 pixels, at ten clients alike: what MNIST is for, without a download.

The data comes with scikit-learn. Test rows are every fifth in its order; the others are shuffled with a committed seed
and dealt out evenly. Logistic regression, starting from zero.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.partition import even
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

CLIENTS: Final = tuple(f"client-{number:02}" for number in range(1, 11))
# Declared training rows, in the order of CLIENTS; a test compares them with the split.
ROWS: Final = (144,) * 8 + (143,) * 2
_SEED: Final = 1
_INK: Final = 16  # a pixel counts the dark ones among 4 x 4 of the scan: 0 to 16
_PIXELS: Final = 64


def load(client: str) -> Dataset:
    """The training rows of one client."""
    if client not in CLIENTS:
        raise BadInput(f"digits has no client {client!r}: its clients are {', '.join(CLIENTS)}")
    features, labels = _records()
    training = np.flatnonzero(~_is_test(len(labels)))
    rows = training[even(len(training), len(CLIENTS), _SEED)[CLIENTS.index(client)]]
    return Dataset(features[rows], labels[rows])


def test() -> Dataset:
    """The public test set: 359 of the 1,797 rows."""
    features, labels = _records()
    chosen = _is_test(len(labels))
    return Dataset(features[chosen], labels[chosen])


def model() -> nn.Module:
    """Logistic regression from zero: the loss is convex, and every client starts alike whatever its torch."""
    from torch import nn

    layer = nn.Linear(_PIXELS, 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _is_test(count: int) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = np.arange(count) % 5 == 4
    return chosen


@cache
def _records() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    raw, labels = load_digits(return_X_y=True)
    return (raw / _INK).astype(np.float32), labels.astype(np.int64)


PILOT = Pilot(
    name="digits",
    title="Handwritten digits at ten clients",
    clients=CLIENTS,
    classes=tuple("0123456789"),
    load=load,
    test=test,
    model=model,
    # Both by five-fold cross-validation on training rows, in a faster simulation of the steps that `benchmarks.tune`
    # takes: the best by the metric or, within .01 of it, the one of least loss.
    private=Recipe(DPSGD(noise_multiplier=5.02, sampling_rate=1.0, steps=2, clip=0.3), LocalOptimizer(26.67), 15),
    public=Recipe(SGD(sampling_rate=1.0, steps=20), LocalOptimizer(2.0, momentum=0.9), 10),
    budget=Budget(epsilon=5.0, delta=1e-5),
    hazards=(
        hazard("tuning", "recipes tuned by cross-validation on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the clients, used as divisors, are treated as public"),
    ),
    source="Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49, CC BY 4.0, as in scikit-learn",
    weights=(1.0,) * len(CLIENTS),
    rows=ROWS,
)
