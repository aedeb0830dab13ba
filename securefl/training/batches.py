"""Rows of a data set as a batch on the model's device, its loss, and pieces of it that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.data import Dataset
from securefl.errors import UnsupportedModel

LANES: Final = 16
"""Rows that kernels are given at least, and in multiples of which."""


class Batch(NamedTuple):
    """Records on one device: features of shape (n, ...), class indices of shape (n,)."""

    features: torch.Tensor
    labels: torch.Tensor


def take(data: Dataset, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """These rows of ``data``."""
    return Batch(torch.from_numpy(data.features[rows]).to(device), torch.from_numpy(data.labels[rows]).to(device))


def made_up(data: Dataset, count: int, device: torch.device) -> Batch:
    """``count`` rows of zeros in the shape of the data: they tell time and memory, and nothing of any record."""
    features = torch.zeros((count, *data.features.shape[1:]), device=device)
    return Batch(features, torch.zeros(count, dtype=torch.int64, device=device))


def pieces(rows: NDArray[np.int64], at_once: int) -> Iterator[NDArray[np.int64]]:
    """``rows`` in order, at most ``at_once`` of them at a time; nothing if there are none."""
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def padded(batch: Batch, at_once: int) -> Batch:
    """The batch with rows of zeros behind it, up to a multiple of ``LANES`` or to ``at_once``, whichever is less.

    Kernels may round a row's result by how many rows there are: so that one record less changes that more seldom.
    """
    count = len(batch.labels)
    missing = min(-(-count // LANES) * LANES, max(at_once, count)) - count
    if not missing:
        return batch
    features = batch.features.new_zeros((missing, *batch.features.shape[1:]))
    return Batch(torch.cat([batch.features, features]), torch.cat([batch.labels, batch.labels.new_zeros(missing)]))


def single(batch: Batch) -> Iterator[Batch]:
    """Each record as a batch of its own."""
    for row in range(len(batch.labels)):
        yield Batch(batch.features[row : row + 1], batch.labels[row : row + 1])


def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy, summed over the batch. Raises ``UnsupportedModel`` as ``outputs`` does."""
    return nn.functional.cross_entropy(outputs(module, batch.features), batch.labels, reduction="sum")


def outputs(module: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """One row a record and one column a class; raises ``UnsupportedModel`` for anything else."""
    found: torch.Tensor = module(features)
    if found.ndim != 2 or len(found) != len(features) or found.shape[1] < 2:
        raise UnsupportedModel(
            f"for {len(features)} records the model returned shape {tuple(found.shape)}: "
            "return one row a record and one column a class, at least two"
        )
    return found


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are."""
    return next(module.parameters()).device
