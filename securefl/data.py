"""A client's records as two arrays. Where they come from is the business of pilots and loaders."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.errors import BadInput


@dataclass(frozen=True)
class Dataset:
    """Records of one client, or a public test set.

    ``features``: float32, shape (n, ...), scaled by public constants; or int64, tokens. ``labels``, shape (n, ...):
    int64 for classes and tokens, float32 for real numbers (:mod:`securefl.objective`).
    ``size``: the declared size n, a public constant by which sums of gradients are divided; None declares the number of
    records, which then is public. Raises ``BadInput`` on unequal lengths, no records, or NaN and infinity.
    """

    features: NDArray[np.float32] | NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] | NDArray[np.float32] = field(repr=False)
    size: int | None = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise BadInput(f"{len(self.features)} rows of features but {len(self.labels)} labels: they must pair up")
        if len(self.labels) == 0:
            raise BadInput("a data set without records: give every client at least one row")
        for name, values in (("features", self.features), ("labels", self.labels)):
            if not np.isfinite(values).all():
                raise BadInput(f"{name} contain NaN or infinity: drop or impute those rows before training")
        if self.size is not None and self.size < 1:
            raise BadInput(f"a declared size of {self.size}: it must be at least 1")
        object.__setattr__(self, "features", _features(self.features))
        object.__setattr__(self, "labels", _labels(self.labels))

    @property
    def declared_size(self) -> int:
        """What everyone may know of how many records there are."""
        return len(self) if self.size is None else self.size

    def __len__(self) -> int:
        return len(self.labels)


def _features(values: NDArray[np.generic]) -> NDArray[np.float32] | NDArray[np.int64]:
    """int64 stays, for tokens; everything else becomes float32."""
    return _int64(values) if values.dtype == np.int64 else _float32(values)


def _labels(values: NDArray[np.generic]) -> NDArray[np.int64] | NDArray[np.float32]:
    """Floating point stays so, for real numbers; everything else becomes int64."""
    return _float32(values) if values.dtype.kind == "f" else _int64(values)


def _int64(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, dtype=np.int64)


def _float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)
