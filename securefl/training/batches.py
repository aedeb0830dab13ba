"""Rows of a data set as a batch on the model's device, its loss, and pieces of it that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.data import Dataset
from securefl.objective import check_outputs, losses

LANES: Final = 16
"""Rows that kernels are given at least, and in multiples of which."""


class Batch(NamedTuple):
    """Records on one device: features and labels of shape (n, ...)."""

    features: torch.Tensor
    labels: torch.Tensor


def take(data: Dataset, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """These rows of ``data``."""
    return Batch(torch.from_numpy(data.features[rows]).to(device), torch.from_numpy(data.labels[rows]).to(device))


def made_up(data: Dataset, count: int, device: torch.device) -> Batch:
    """``count`` rows of zeros in the shape of the data: they tell time and memory, and nothing of any record."""
    parts = (torch.from_numpy(np.zeros((count, *part.shape[1:]), part.dtype)) for part in (data.features, data.labels))
    return Batch(*(part.to(device) for part in parts))


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
    return Batch(*(torch.cat([part, part.new_zeros((missing, *part.shape[1:]))]) for part in batch))


def single(batch: Batch) -> Iterator[Batch]:
    """Each record as a batch of its own."""
    for row in range(len(batch.labels)):
        yield Batch(batch.features[row : row + 1], batch.labels[row : row + 1])


def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
    """The records' losses, summed over the batch. Raises ``UnsupportedModel`` as ``outputs`` does."""
    return losses(outputs(module, batch), batch.labels).sum()


def outputs(module: nn.Module, batch: Batch) -> torch.Tensor:
    """What the model says of each record; raises ``UnsupportedModel`` where its shape does not fit the labels."""
    found: torch.Tensor = module(batch.features)
    check_outputs(found, batch.labels)
    return found


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are."""
    return next(module.parameters()).device
