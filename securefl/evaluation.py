"""How good a model is on a public test set, and how good it could have been without federation and privacy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import measures, objective, training, vector
from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.mishaps import LostRecords, Tell, unheard
from securefl.pilots import Recipe
from securefl.privacy.mechanism import SGD
from securefl.training.batches import Batch, padded

_ROWS_AT_ONCE = 4096
# Of sequences: a model that knows 128,256 tokens says 2 GB of so many.
_TOKENS_AT_ONCE = 4096


def accuracy(module: nn.Module, data: Dataset) -> float:
    """The share of records, or of their tokens, that are predicted right (:func:`securefl.objective.right`).

    Exact, so only for data declared public.
    """
    weights = objective.weight(data.labels)
    with _evaluating(module):
        right = [_right(module, data, rows) for rows in _slices(data)]
    return float(weights @ np.concatenate(right) / max(weights.sum(), 1.0))


def metrics(module: nn.Module, data: Dataset, size: float = 1.0) -> dict[str, float]:
    """What :mod:`securefl.measures` has for labels of this kind: of classes or of real numbers, of tokens nothing.

    ``size``: of real labels' unit. Exact, so only for data declared public.
    """
    if data.labels.ndim == 2 and data.labels.dtype.kind == "i":
        return {}
    with _evaluating(module):
        parts = [module(torch.from_numpy(data.features[rows])) for rows in _slices(data)]
        outputs = torch.cat(parts).double()
    if data.labels.dtype.kind == "f":
        expected = data.labels.reshape(outputs.shape).astype(np.float64)
        return measures.of_numbers(outputs.numpy(), expected, size)
    return measures.of_classes(outputs.softmax(1).numpy(), data.labels.astype(np.int64))


def sums(module: nn.Module, data: Dataset, loss_bound: float, tell: Tell = unheard) -> NDArray[np.float64]:
    """How many records are predicted right, and the sum of their losses, each cut off at ``loss_bound`` and
    divided by it; shape (2,). What one record adds is between 0 and 1 in each: nothing and 1 where its loss is not
    finite, or the model's code fails on it, since failing as a whole would tell that there is such a record: ``tell``
    hears of those, at the owner's.
    """
    found, lost = np.zeros(2), LostRecords()
    with _evaluating(module):
        for rows in _slices(data):
            found += _added(module, data.features[rows], data.labels[rows], loss_bound, lost)
    lost.report(tell)
    return found


def scores(module: nn.Module, data: Dataset, tell: Tell = unheard) -> NDArray[np.float64]:
    """Each record's probability of not being of class 0, shape (n,); 0 where the model's code fails on it."""
    found, lost = np.zeros(len(data)), LostRecords()
    with _evaluating(module):
        for row in range(len(data)):
            try:
                outputs = module(torch.from_numpy(data.features[row : row + 1])).double()
                found[row] = float((1 - outputs.softmax(1)[0, 0]).nan_to_num(nan=0.0).clamp(0, 1))
            except Exception as error:
                lost.add(error)
    lost.report(tell)
    return found


def accuracy_of(
    factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32], test: Dataset | None
) -> float | None:
    """The accuracy of the module that ``factory`` makes, with these parameters; None without a test set."""
    return None if test is None else accuracy(_made(factory, seed, parameters), test)


def metrics_of(
    factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32], test: Dataset | None, size: float
) -> dict[str, float]:
    """The other figures of that module; none without a test set."""
    return {} if test is None else metrics(_made(factory, seed, parameters), test, size)


def centralised_accuracy(
    factory: Callable[[], nn.Module], seed: int, datasets: Sequence[Dataset], test: Dataset, recipe: Recipe
) -> float:
    """Test accuracy of the twin (:func:`twin`)."""
    return accuracy(twin(factory, seed, datasets, recipe), test)


def twin(factory: Callable[[], nn.Module], seed: int, datasets: Sequence[Dataset], recipe: Recipe) -> nn.Module:
    """The same model after as many steps of plain SGD on all clients' rows in one place.

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
    return module


def _made(factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32]) -> nn.Module:
    module = vector.build(factory, seed)
    vector.load(module, parameters)
    return module


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients; the module ends as it began."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _slices(data: Dataset) -> Iterator[slice]:
    at_once = _rows_at_once(data.features)
    for start in range(0, len(data), at_once):
        yield slice(start, start + at_once)


def _rows_at_once(features: NDArray[np.generic]) -> int:
    if features.dtype != np.int64:
        return _ROWS_AT_ONCE
    return max(1, _TOKENS_AT_ONCE // max(1, math.prod(features.shape[1:])))


def _added(
    module: nn.Module,
    features: NDArray[np.generic],
    labels: NDArray[np.generic],
    loss_bound: float,
    lost: LostRecords,
) -> NDArray[np.float64]:
    """What these records add to ``sums``; one by one where the model's code fails on all of them together."""
    try:
        filled = padded(Batch(torch.from_numpy(features), torch.from_numpy(labels)), _rows_at_once(features))
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


def _right(module: nn.Module, data: Dataset, rows: slice) -> NDArray[np.float64]:
    outputs = module(torch.from_numpy(data.features[rows]))
    found: NDArray[np.float64] = objective.right(outputs, torch.from_numpy(data.labels[rows])).numpy()
    return found
