"""Canaries whose gradients do not overlap: records that move coordinates which nothing else of the data moves.

Every model gets a table with one row a canary, which adds nothing to its outputs and yet has their gradient. A canary's
gradient is clipped to its own row, nearly all of it, so that each row shows one canary and noise: the strongest
gradient canaries there are (Nasr et al., USENIX Security 2023, section 4.2), through unchanged code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.data import Dataset

Factory = Callable[[], nn.Module]

# A canary's other gradients, of biases, are this much shorter than that of its own row: clipping leaves all but 5e-7.
_LENGTH: Final = 1e3
_NO_GRADIENT: Final = 1e-30
_NOBODY: Final = -1  # the number of a record that has no gradient at all


class Marked(nn.Module):
    """``base`` with a table of ``canaries`` rows behind it. Records have one more number: their canary's, or 0; or -1
    for one that is as if it were not there, and moves nothing.

    Outputs are those of ``base``, whatever the table holds. A canary has its label's gradient in its row:
    (p - y) for the probabilities p that ``base`` gives to a record of zeros.
    """

    def __init__(self, base: nn.Module, shape: tuple[int, ...], classes: int, canaries: int) -> None:
        super().__init__()
        self.base = base
        self.table = nn.Embedding(canaries + 1, classes)
        nn.init.zeros_(self.table.weight)
        self._shape = shape

    def forward(self, records: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.base(records[:, :-1].reshape(len(records), *self._shape))
        there = (records[:, -1] > _NOBODY).unsqueeze(1)
        outputs = torch.where(there, outputs, outputs.detach())
        numbers = records[:, -1].long().clamp(0, self.table.num_embeddings - 1)
        rows: torch.Tensor = self.table(numbers) * ((numbers > 0) * _LENGTH).unsqueeze(1)
        return outputs + (rows - rows.detach())  # in this order: what is added is 0, and rounds nothing off


def marked(model: Factory, like: Dataset, classes: int, canaries: int) -> Factory:
    """The factory of ``model`` with a table for ``canaries``; ``like`` has the shape of its records."""
    return lambda: Marked(model(), like.features.shape[1:], classes, canaries)


def unmarked(data: Dataset) -> Dataset:
    """The same records for a marked model; none of them is a canary."""
    return _numbered(data, np.zeros(len(data), np.float32))


def with_canaries(data: Dataset, included: NDArray[np.bool_]) -> Dataset:
    """``data`` and behind it those canaries that are ``included``; the declared size stays as if there were none.

    Canary i, from 0, is a record of zeros with label 0 and row i + 1.
    """
    numbers = np.flatnonzero(included).astype(np.float32) + 1
    features = np.concatenate([data.features, np.zeros((len(numbers), *data.features.shape[1:]), np.float32)])
    labels = np.concatenate([data.labels, np.zeros(len(numbers), np.int64)])
    everything = Dataset(features, labels, data.declared_size)
    return _numbered(everything, np.concatenate([np.zeros(len(data), np.float32), numbers]))


def canary_alone(like: Dataset, number: int) -> Dataset:
    """The only record of a canary client: canary ``number``, from 0; -1: one that moves nothing: zeros are sent."""
    record = Dataset(np.zeros((1, *like.features.shape[1:]), np.float32), np.zeros(1, np.int64))
    return _numbered(record, np.array([number + 1 if number >= 0 else _NOBODY], np.float32))


def direction(module: Marked) -> NDArray[np.float64]:
    """The unit vector, shape (classes,), along which descent moves a canary's row: that of y - p."""
    shape, device = module._shape, module.table.weight.device
    was_training = module.training
    module.eval()
    with torch.no_grad():
        chances = torch.softmax(module.base(torch.zeros(1, *shape, device=device)), dim=1)[0].double().cpu().numpy()
    module.train(was_training)
    toward: NDArray[np.float64] = -chances
    toward[0] += 1
    # Of a model that is certain of label 0 canaries have no gradient, and no direction is better than another.
    return toward / max(float(np.linalg.norm(toward)), _NO_GRADIENT)


def elsewhere(module: Marked, flat: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of a flat vector of the module's parameters, those of the base, by name."""
    found, start = {}, 0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and name.startswith("base."):
            found[name] = flat[start : start + parameter.numel()]
        start += parameter.numel() if parameter.requires_grad else 0
    return found


def rows(module: Marked, flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a flat vector of the module's parameters, the canaries' rows: shape (canaries, classes)."""
    table = module.table.weight  # the last of the parameters; its row 0 is that of no canary
    return flat[-table.numel() :].reshape(table.shape)[1:]


def _numbered(data: Dataset, numbers: NDArray[np.float32]) -> Dataset:
    flat = data.features.reshape(len(data), -1)
    return Dataset(np.concatenate([flat, numbers[:, None]], axis=1), data.labels, data.size)
