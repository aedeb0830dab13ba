"""The gradients of a batch's records for one parameter, in forms of different size, and their clipped sum.

``Stack`` holds each record's gradient. ``Products`` and ``Entries`` hold what it is made of, so that norms and the sum
come without it: ghost clipping (Li et al., ICLR 2022), the sum from what one backward pass leaves behind (Bu et al.,
ICML 2023, "book-keeping"). A second backward pass, as in Opacus, would round anew: where a gradient is what rounding
left of large terms, it comes out longer than the one that was measured.

Gradients are float32; norms and sums are float64. In float32 the norm of 2e7 equal entries is 1.7 % too small, and the
sum of a batch depends on its order by more than the clipping margin (Casacuberta et al., CCS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

# Squares added up in float32: of 128, in any order, the sum is within 128 * 2^-24 = 2^-17, its root within 2^-18.
_SEGMENT = 128
# Columns that are float64 at once: they stay in a core's cache.
_COLUMNS = 8192
# A float32 square below this is lost or imprecise.
_TINY = 2.0**-126


class Gradients(Protocol):
    """Gradients of n records for one parameter, float32."""

    @property
    def records(self) -> int:
        """n."""

    @property
    def size(self) -> int:
        """How many entries the parameter has."""

    @property
    def memory(self) -> int:
        """Bytes that are held."""

    def squares(self) -> torch.Tensor:
        """Each record's squared L2 norm: float64, shape (n,), at least ``1 - 2**-17`` of the exact one.

        Not finite exactly where an entry of the record's gradient is not.
        """

    def silenced(self, silent: torch.Tensor) -> Gradients:
        """The same with zeros for the ``silent`` records, a mask of shape (n,)."""

    def add_weighted(self, weights: torch.Tensor, total: torch.Tensor) -> None:
        """Add the sum of the records' gradients, each times its weight, to the flat float64 ``total`` in place."""


def add_clipped(gradients: Sequence[Gradients], clip: float, total: torch.Tensor, records: int | None = None) -> None:
    """Add the sum of the records' clipped gradients for all parameters, in order, to the flat float64 ``total``.

    ``records``: only the first so many; the others are rows that fill a batch up.

    Guarantee: a record adds a vector of L2 norm at most ``clip * (1 + 2**-17)``, whatever the gradients and up to 2^30
    parameters; one with an entry that is not finite adds nothing, since no weight bounds NaN.
    """
    squares = torch.stack([one.squares() for one in gradients]).sum(dim=0)
    silent = ~squares.isfinite()
    if silent.any():
        # 0 * NaN is NaN
        gradients = [one.silenced(silent) for one in gradients]
        squares = squares.masked_fill(silent, 0.0)
    # Where the norm is 0 the quotient is infinite, and the weight 1.
    weights = (clip / squares.sqrt()).clamp(max=1.0)
    if records is not None:
        weights[records:] = 0.0
    for one, part in zip(gradients, torch.split(total, [one.size for one in gradients]), strict=True):
        one.add_weighted(weights, part)


@dataclass(frozen=True)
class Stack:
    """Each record's gradient in full: shape (n, *shape of the parameter)."""

    rows: torch.Tensor

    @property
    def records(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        return self.rows[:1].numel()

    @property
    def memory(self) -> int:
        return self.rows.nbytes

    def squares(self) -> torch.Tensor:
        flat = self.rows.flatten(1)
        whole = flat.shape[1] // _SEGMENT
        if whole == 0:
            return _square(flat)
        segments = flat[:, : whole * _SEGMENT].view(len(flat), whole, _SEGMENT)
        found = _square(torch.linalg.vector_norm(segments, dim=2)) + _square(flat[:, whole * _SEGMENT :])
        large = ~found.isfinite()  # entries that are not finite, or whose squares are past float32
        if large.any():
            found[large] = _square(flat[large])
        return found + flat.shape[1] * _TINY

    def silenced(self, silent: torch.Tensor) -> Stack:
        return Stack(_zeroed(self.rows.flatten(1), silent))

    def add_weighted(self, weights: torch.Tensor, total: torch.Tensor) -> None:
        flat = self.rows.flatten(1)
        for columns, part in zip(torch.split(flat, _COLUMNS, dim=1), torch.split(total, _COLUMNS), strict=True):
            part.addmv_(columns.double().T, weights)


@dataclass(frozen=True)
class Products:
    """Gradients that are outer products ``left[i] right[i]^T``, as a linear layer's are: (n, out) and (n, in)."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def records(self) -> int:
        return len(self.left)

    @property
    def size(self) -> int:
        return self.left.shape[1] * self.right.shape[1]

    @property
    def memory(self) -> int:
        return self.left.nbytes + self.right.nbytes

    def squares(self) -> torch.Tensor:
        # Not finite exactly where an entry of the product in float32 is not: that multiplication is monotone.
        left, right = (torch.linalg.vector_norm(side, math.inf, dim=1) for side in (self.left, self.right))
        return (_square(self.left) * _square(self.right)).masked_fill(~(left * right).isfinite(), math.inf)

    def silenced(self, silent: torch.Tensor) -> Products:
        return Products(_zeroed(self.left, silent), _zeroed(self.right, silent))

    def add_weighted(self, weights: torch.Tensor, total: torch.Tensor) -> None:
        left = self.left.double().mul_(weights[:, None])
        total.view(left.shape[1], -1).addmm_(left.T, self.right.double())


@dataclass(frozen=True)
class Entries:
    """Gradients that are 0 but in a few rows of the parameter, as an embedding's are.

    Row ``places[j]`` of the gradient of record ``owners[j]`` is ``rows[j]``; no pair occurs twice. ``records`` and
    ``height`` are the numbers of records and of the parameter's rows.
    """

    rows: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor
    records: int
    height: int

    @classmethod
    def gathered(cls, places: torch.Tensor, rows: torch.Tensor, height: int) -> Entries:
        """From each record's places, shape (n, k), and what is added at them, (n, k, width). Equal ones add up."""
        records, each = places.shape
        owners = torch.arange(records, device=places.device).repeat_interleave(each)
        pairs, which = torch.unique(owners * height + places.flatten(), return_inverse=True)
        added = rows.new_zeros((len(pairs), rows.shape[-1])).index_add_(0, which, rows.flatten(0, 1))
        return cls(added, pairs // height, pairs % height, records, height)

    @property
    def size(self) -> int:
        return self.height * self.rows.shape[1]

    @property
    def memory(self) -> int:
        return self.rows.nbytes + self.owners.nbytes + self.places.nbytes

    def squares(self) -> torch.Tensor:
        return self.rows.new_zeros(self.records, dtype=torch.float64).index_add_(0, self.owners, _square(self.rows))

    def silenced(self, silent: torch.Tensor) -> Entries:
        return replace(self, rows=_zeroed(self.rows, silent[self.owners]))

    def add_weighted(self, weights: torch.Tensor, total: torch.Tensor) -> None:
        added = self.rows.double().mul_(weights[self.owners, None])
        total.view(self.height, -1).index_add_(0, self.places, added)


def _square(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows.double(), dim=1)
    return norms.square()


def _zeroed(rows: torch.Tensor, silent: torch.Tensor) -> torch.Tensor:
    return rows.masked_fill(silent[:, None], 0.0)
