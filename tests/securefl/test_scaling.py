from __future__ import annotations

import os

import numpy as np
import pytest

from protocols.primitives import Identity
from securefl.data import Dataset
from securefl.errors import BadInput, BudgetExceeded, LedgerError
from securefl.privacy.fingerprint import fingerprint_key
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.mechanism import Budget, NoisedSum
from securefl.scaling import Moments, Scaling, measure, pooled

IDENTITY = Identity.generate(os.urandom)
KEY = fingerprint_key(IDENTITY)
BOUNDS = (8.0, 30.0, 1.0)


def ledger(epsilon: float = 10.0) -> Ledger:
    return Ledger(":memory:", IDENTITY, Owner("ada", "toy"), Budget(epsilon, 1e-5))


def records(count: int = 4000, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    features = rng.normal([3.0, -10.0, 0.5], [1.0, 5.0, 0.1], (count, 3)).astype(np.float32)
    return Dataset(features, np.zeros(count, np.int64))


def test_scaled_features_have_about_mean_zero_and_deviation_one() -> None:
    parts = [records(seed=seed) for seed in range(3)]
    found = pooled([measure(part, BOUNDS, 1.0, ledger(), KEY) for part in parts], BOUNDS)
    scaled = found.apply(np.concatenate([part.features for part in parts]))
    # Noise of deviation sqrt(6) on sums over 4000 records moves a mean by 6e-4 cut-offs of 40, which the third feature,
    # a fortieth of a thousandth wide, feels most; six deviations of that noise.
    assert np.abs(scaled[:, :2].mean(axis=0)).max() < 0.15
    assert np.abs(scaled[:, :2].std(axis=0) - 1).max() < 0.15


def test_it_is_charged_before_it_is_computed_and_once_for_each_name() -> None:
    book = ledger()
    measure(records(), BOUNDS, 2.0, book, KEY)
    (entry,) = book.entries()
    (release,) = entry.releases
    assert isinstance(release, NoisedSum) and release.released == "statistics"
    with pytest.raises(LedgerError):
        measure(records(), BOUNDS, 2.0, book, KEY)
    measure(records(), BOUNDS, 2.0, book, KEY, name="again")
    assert len(book.entries()) == 2


def test_a_spent_budget_measures_nothing() -> None:
    book = ledger(0.1)
    with pytest.raises(BudgetExceeded):
        measure(records(), BOUNDS, 1.0, book, KEY)
    assert not book.entries()


def test_one_record_moves_the_sums_by_less_than_the_bound_that_is_charged() -> None:
    """Without noise to speak of: two neighbouring data sets with the same declared size, the worst record in one."""
    few = records(50)
    worst = Dataset(np.vstack([few.features, np.full((1, 3), 1e9, np.float32)]), np.zeros(51, np.int64), size=50)
    one, other = (measure(data, BOUNDS, 1e-9, Ledger(":memory:", IDENTITY, Owner("ada", "toy"), None), KEY)
                  for data in (Dataset(few.features, few.labels, size=50), worst))  # fmt: skip
    moved = 50 * (np.array([*one.means, *one.squares]) - np.array([*other.means, *other.squares]))
    assert np.linalg.norm(moved) <= np.sqrt(6) * (1 + 2**-16) + 1e-6


def test_what_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(BadInput):
        measure(records(), (8.0, 0.0, 1.0), 1.0, ledger(), KEY)
    with pytest.raises(BadInput):
        measure(Dataset(np.zeros((4, 2, 2), np.float32), np.zeros(4, np.int64)), (1.0, 1.0), 1.0, ledger(), KEY)
    with pytest.raises(BadInput):
        pooled([], (1.0,))
    with pytest.raises(BadInput):
        pooled([Moments(3, (0.0,), (1.0,)), Moments(3, (0.0, 0.0), (1.0, 1.0))], (1.0,))


def test_a_feature_that_noise_makes_constant_is_not_blown_up() -> None:
    found = pooled([Moments(10, (0.5,), (0.2,))], (2.0,))
    assert found == Scaling((2.0,), (1.0,), (0.002,))
