"""A client's records as two arrays. Where they come from is the business of pilots and loaders."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.errors import BadInput


@dataclass(frozen=True)
class Dataset:
    """Records of one client, or a public test set.

    ``features``: float32, shape (n, ...), scaled by public constants. ``labels``: int64 class indices, shape (n,).
    ``size``: the declared size n, a public constant by which sums of gradients are divided; None declares the number of
    records, which then is public. Raises ``BadInput`` on unequal lengths, no records, or NaN and infinity.
    """

    features: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    size: int | None = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise BadInput(f"{len(self.features)} rows of features but {len(self.labels)} labels: they must pair up")
        if len(self.labels) == 0:
            raise BadInput("a data set without records: give every client at least one row")
        if not np.isfinite(self.features).all():
            raise BadInput("features contain NaN or infinity: drop or impute those rows before training")
        if self.size is not None and self.size < 1:
            raise BadInput(f"a declared size of {self.size}: it must be at least 1")
        object.__setattr__(self, "features", np.ascontiguousarray(self.features, dtype=np.float32))
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, dtype=np.int64))

    @property
    def declared_size(self) -> int:
        """What everyone may know of how many records there are."""
        return len(self) if self.size is None else self.size

    def __len__(self) -> int:
        return len(self.labels)
