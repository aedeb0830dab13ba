"""What a model is trained for, as the labels' type says: classes, tokens of a sequence, or real numbers.

Each record has one loss, which no other record changes: that is what clipping record by record rests on.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.errors import BadInput, UnsupportedModel

IGNORED: Final = -100
"""As a token's label: nothing is predicted there. The length of a sequence may so differ from record to record."""


def check_labels(labels: NDArray[np.generic], outputs: torch.Tensor) -> None:
    """Raise ``BadInput`` for labels that outputs of this shape cannot be compared with.

    Integers, shape (n,): classes, for outputs (n, classes). Integers (n, length): tokens, for (n, length, vocabulary).
    float32 (n,) or (n, targets): real numbers, for (n, targets).
    """
    if labels.dtype.kind == "f":
        return
    count, counted = outputs.shape[-1], labels[labels != IGNORED] if labels.ndim == 2 else labels
    if len(counted) and not 0 <= int(counted.min()) <= int(counted.max()) < count:
        raise BadInput(f"labels must be 0 to {count - 1}, one for each of the model's outputs")


def check_outputs(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ``UnsupportedModel`` for outputs of another shape than the labels ask for."""
    expected = f"one row a record and {_columns(labels)}"
    if labels.is_floating_point():
        fits = outputs.ndim == 2 and tuple(outputs.shape) == tuple(_table(labels).shape)
    else:
        fits = outputs.ndim == labels.ndim + 1 and outputs.shape[:-1] == labels.shape and outputs.shape[-1] >= 2
    if not fits:
        raise UnsupportedModel(
            f"for {len(labels)} records the model returned shape {tuple(outputs.shape)}: return {expected}"
        )


def losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each record's loss, shape (n,): cross-entropy; of tokens the mean over those that count; half the squared error.

    A record none of whose tokens counts has loss 0.
    """
    if labels.is_floating_point():
        return (outputs - _table(labels)).square().sum(1) / 2
    if labels.ndim == 1:
        return nn.functional.cross_entropy(outputs, labels, reduction="none")
    each = nn.functional.cross_entropy(outputs.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    return each.sum(1) / (labels != IGNORED).sum(1).clamp(min=1)


def right(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How far each record is predicted right, from 0 to 1, shape (n,), float64.

    Of classes 0 or 1; of tokens the share of those that count; of real numbers 1 where all are nearer than 1/2 of the
    target's unit, else 0.
    """
    if labels.is_floating_point():
        return ((outputs - _table(labels)).abs() < 0.5).all(1).double()
    hit = outputs.argmax(-1) == labels
    if labels.ndim == 1:
        return hit.double()
    return hit.sum(1).double() / (labels != IGNORED).sum(1).clamp(min=1)


def weight(labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """How much each record counts in the mean of a test set: records equally, sequences by their tokens."""
    if labels.ndim == 2 and labels.dtype.kind == "i":
        found: NDArray[np.float64] = (labels != IGNORED).sum(1).astype(np.float64)
        return found
    return np.ones(len(labels))


def _table(labels: torch.Tensor) -> torch.Tensor:
    return labels[:, None] if labels.ndim == 1 else labels


def _columns(labels: torch.Tensor) -> str:
    if labels.is_floating_point():
        return f"{_table(labels).shape[1]} column(s), one a target: labels are real numbers here, classes are integers"
    return "one column a class, at least two" if labels.ndim == 1 else "of it one row a token, with one column a token"
