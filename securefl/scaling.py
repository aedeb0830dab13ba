"""Feature scaling from the records themselves, without voiding their privacy: noised means and deviations, charged.

Statistics that are fitted exactly on the records tell about each of them, which no epsilon of training covers. These
have noise, and their cost is in the ledger that training is charged to. Public constants cost nothing: prefer them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.privacy.fingerprint import fingerprint
from securefl.privacy.ledger import Ledger
from securefl.privacy.mechanism import NoisedSum
from securefl.privacy.noise import grid, noised

# Below this part of the cut-off a deviation is taken for noise, and not divided by.
_LEAST_DEVIATION: Final = 1e-3
# Two sums that are rounded to the grid of the noise move apart by 2**-16 of the bound more than they did.
_GRID: Final = 1 + 2.0**-16


class Moments(Struct, frozen=True):
    """One client's noised sums over its records, each divided by its declared size: of the features in bounds, cut off
    at 1, and of their squares; shape (features,) each. Free to be published: they were charged.
    """

    size: int
    means: tuple[float, ...]
    squares: tuple[float, ...]


class Scaling(Struct, frozen=True):
    """What takes a feature to about mean 0 and deviation 1: constants that may be published and written into a loader.

    ``bounds``: where each raw feature is cut off, either way.
    """

    bounds: tuple[float, ...]
    centres: tuple[float, ...]
    deviations: tuple[float, ...]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scaled features, of the shape (records, features) of the raw ones."""
        most = np.array(self.bounds)
        cut = np.clip(features.astype(np.float64), -most, most)
        scaled: NDArray[np.float64] = (cut - np.array(self.centres)) / np.array(self.deviations)
        return scaled.astype(np.float32)


def measure(
    data: Dataset,
    bounds: Sequence[float],
    noise_multiplier: float,
    ledger: Ledger,
    key: bytes,
    name: str = "scaling",
) -> Moments:
    """A client's moments, after charging ``ledger``; ``key`` makes its fingerprints (``privacy.fingerprint_key``).

    Raw features, shape (records, features), are cut off at ``bounds``, public constants, one each. ``name`` stands in
    the ledger where a run's id does: each measurement has its own.

    Guarantee: record level, add-or-remove-one, that of :class:`NoisedSum`. Raises ``BudgetExceeded`` if it does not
    fit, ``LedgerError`` for a name that was charged before, ``BadInput`` for bounds that are none.
    """
    shape, columns = data.features.shape, len(bounds)
    if shape[1:] != (columns,) or not all(0 < bound < math.inf for bound in bounds):
        raise BadInput(f"features of shape {shape} have one column for each of {columns} bounds, finite and above 0")
    # Of one record: each feature and its square, both within 1.
    longest = math.sqrt(2 * columns)
    release = NoisedSum("statistics", noise_multiplier, longest * _GRID)
    ledger.charge(name, 1, 1, (release,), fingerprint(key, data.features, data.labels), simulated=False)
    cut = np.clip(data.features.astype(np.float64) / np.array(bounds), -1, 1)
    sums = np.concatenate([cut.sum(axis=0), np.square(cut).sum(axis=0)])
    found = noised(sums, release.noise_multiplier * release.bound, grid(longest, 2 * columns))
    means, squares = np.split(found / data.declared_size, 2)
    return Moments(data.declared_size, tuple(means.tolist()), tuple(squares.tolist()))


def pooled(moments: Sequence[Moments], bounds: Sequence[float]) -> Scaling:
    """One scaling for all clients, from what each measured with these bounds; weighted by declared sizes.

    Raises ``BadInput`` for none, or for moments of different features.
    """
    if {len(one.means) for one in moments} != {len(bounds)}:
        raise BadInput("moments of at least one client are pooled, with as many features as there are bounds")
    weights = np.array([one.size for one in moments], np.float64)
    means = np.average([one.means for one in moments], axis=0, weights=weights)
    squares = np.average([one.squares for one in moments], axis=0, weights=weights)
    deviations = np.sqrt(np.maximum(squares - np.square(means), _LEAST_DEVIATION**2))
    most = np.array(bounds, np.float64)
    return Scaling(tuple(most.tolist()), tuple((most * means).tolist()), tuple((most * deviations).tolist()))
