"""How good a model is on a public test set, and how good it could have been without federation and privacy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import objective, training, vector
from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.mishaps import LostRecords, Tell, unheard
from securefl.pilots import Recipe
from securefl.privacy.mechanism import SGD
from securefl.training.batches import Batch, padded

_ROWS_AT_ONCE = 4096


def accuracy(module: nn.Module, data: Dataset) -> float:
    """The share of records, or of their tokens, that are predicted right (:func:`securefl.objective.right`).

    Exact, so only for data declared public.
    """
    weights = objective.weight(data.labels)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            right = [_right(module, data, start) for start in range(0, len(data), _ROWS_AT_ONCE)]
    finally:
        module.train(was_training)
    return float(weights @ np.concatenate(right) / max(weights.sum(), 1.0))


def sums(module: nn.Module, data: Dataset, loss_bound: float, tell: Tell = unheard) -> NDArray[np.float64]:
    """How many records are predicted right, and the sum of their losses, each cut off at ``loss_bound`` and
    divided by it; shape (2,). What one record adds is between 0 and 1 in each: nothing and 1 where its loss is not
    finite, or the model's code fails on it, since failing as a whole would tell that there is such a record: ``tell``
    hears of those, at the owner's.
    """
    found, lost = np.zeros(2), LostRecords()
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(data), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                found += _added(module, data.features[rows], data.labels[rows], loss_bound, lost)
    finally:
        module.train(was_training)
    lost.report(tell)
    return found


def accuracy_of(
    factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32], test: Dataset | None
) -> float | None:
    """The accuracy of the module that ``factory`` makes, with these parameters; None without a test set."""
    if test is None:
        return None
    module = vector.build(factory, seed)
    vector.load(module, parameters)
    return accuracy(module, test)


def centralised_accuracy(
    factory: Callable[[], nn.Module], seed: int, datasets: Sequence[Dataset], test: Dataset, recipe: Recipe
) -> float:
    """Test accuracy of the twin: the same model and number of steps, plain SGD on all clients' rows in one place.

    Guarantee: none; this pools what the federation keeps apart, so it is for simulations and public data. A DP-SGD
    recipe is run without its clipping and noise.
    """
    if not datasets:
        raise BadInput("no data sets to pool: give at least one client's")
    pooled = Dataset(
        np.concatenate([data.features for data in datasets]), np.concatenate([data.labels for data in datasets])
    )
    mechanism = SGD(recipe.mechanism.sampling_rate, recipe.mechanism.steps)
    module = vector.build(factory, seed)
    for _ in range(recipe.rounds):
        update = training.train(module, pooled, mechanism, recipe.optimizer)
        vector.load(module, vector.flatten(module) + update)
    return accuracy(module, test)


def _added(
    module: nn.Module,
    features: NDArray[np.generic],
    labels: NDArray[np.generic],
    loss_bound: float,
    lost: LostRecords,
) -> NDArray[np.float64]:
    """What these records add to ``sums``; one by one where the model's code fails on all of them together."""
    try:
        filled = padded(Batch(torch.from_numpy(features), torch.from_numpy(labels)), _ROWS_AT_ONCE)
        outputs, expected = module(filled.features)[: len(labels)], torch.from_numpy(labels)
        losses = objective.losses(outputs, expected).double()
        right = objective.right(outputs, expected) * losses.isfinite()
        return np.array([float(right.sum()), float((losses / loss_bound).nan_to_num(nan=1.0).clamp(0, 1).sum())])
    except Exception as error:
        if len(labels) == 1:
            lost.add(error)
            return np.array([0.0, 1.0])
    parts = [_added(module, features[i : i + 1], labels[i : i + 1], loss_bound, lost) for i in range(len(labels))]
    found: NDArray[np.float64] = np.sum(parts, axis=0)
    return found


def _right(module: nn.Module, data: Dataset, start: int) -> NDArray[np.float64]:
    rows = slice(start, start + _ROWS_AT_ONCE)
    outputs = module(torch.from_numpy(data.features[rows]))
    found: NDArray[np.float64] = objective.right(outputs, torch.from_numpy(data.labels[rows])).numpy()
    return found
