"""How good predictions are, beyond accuracy: ranking, probabilities, numbers. Exact, so only for data declared public.

Nothing here is noised: of records that nobody declared public, protected sums are measured instead
(:mod:`securefl.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Classes = NDArray[np.int64]

LOSS_BOUND: Final = 10.0
"""Nats at which one record's log-loss is cut off: the probability e^-10, 1 in 22,000. One certain error is then no
infinity, and the mean stays that of the others."""

BINS: Final = 15
"""Of a calibration error, as in Guo et al., ICML 2017."""

NAMES: Final[Mapping[str, str]] = {
    "auc": "area under the ROC curve",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
"""What the keys of ``of_classes`` and ``of_numbers`` mean, in words."""

_IN_UNITS: Final = ("mae", "rmse")


def of_classes(probabilities: Numbers, labels: Classes) -> dict[str, float]:
    """Log-loss (nats a record) and calibration error; of two classes, the area under the ROC curve of the second.

    ``probabilities``: shape (n, classes), rows that sum to 1. Without a record of each class there is no area. Empty
    where a probability is not a number, or a label has none: such a model has no figures.
    """
    if not np.isfinite(probabilities).all() or not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        return {}
    found = {
        "log_loss": log_loss(probabilities, labels),
        "calibration_error": calibration_error(probabilities, labels),
    }
    if probabilities.shape[1] == 2 and len(np.unique(labels)) == 2:
        return {"auc": auc(probabilities[:, 1], labels == 1), **found}
    return found


def of_numbers(predicted: Numbers, expected: Numbers, size: float = 1.0) -> dict[str, float]:
    """Mean absolute and root mean squared error, over all records and targets, times ``size``: one label's unit.

    Empty where a prediction is not a number.
    """
    if not np.isfinite(predicted).all():
        return {}
    return {"mae": size * mae(predicted, expected), "rmse": size * rmse(predicted, expected)}


def auc(scores: Numbers, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive record scores above a negative one, ties counted half: from 0 to 1.

    Mann and Whitney's U over the number of pairs, by mid-ranks (Hanley and McNeil, Radiology 1982, section 3): exact.
    NaN without a record of each kind.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    if not pairs:
        return float("nan")
    return float((middle[place][positive].sum() - positives * (positives + 1) / 2) / pairs)


def log_loss(probabilities: Numbers, labels: Classes, bound: float = LOSS_BOUND) -> float:
    """The mean of -ln p(true class), each record's cut off at ``bound``: nats, from 0 to ``bound``.

    The logarithmic score (Good, JRSS B 1952), which only honest probabilities minimise, but for the cut.
    """
    chance = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chance, np.exp(-bound))).mean())


def calibration_error(probabilities: Numbers, labels: Classes, bins: int = BINS) -> float:
    """The expected calibration error of the predicted class: how far confidence and accuracy are apart, from 0 to 1.

    Guo et al., ICML 2017, equation 3: bins of equal width, weighted by their records. A bin with few records errs by
    chance alone, so that also a perfect model is a little above 0.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    # (k/bins, (k+1)/bins], as there; a confidence of 0 is impossible
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def mae(predicted: Numbers, expected: Numbers) -> float:
    """The mean of ``|predicted - expected|``."""
    return float(np.abs(predicted - expected).mean())


def rmse(predicted: Numbers, expected: Numbers) -> float:
    """The root of the mean of ``(predicted - expected)^2``."""
    return float(np.sqrt(np.square(predicted - expected).mean()))


def told(metrics: Mapping[str, float], unit: str = "") -> str:
    """All of them in one line, in the order of ``NAMES``; ``unit``: of errors. Empty if there are none."""
    known = list(NAMES)
    keys = sorted(metrics, key=lambda key: (known.index(key) if key in NAMES else len(known), key))
    return ", ".join(f"{NAMES.get(key, key)} {metrics[key]:.3f}{_unit(key, unit)}" for key in keys)


def _unit(key: str, unit: str) -> str:
    if key == "log_loss":
        return " nats"
    return f" {unit}" if unit and key in _IN_UNITS else ""
