from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from benchmarks.tune import simulate
from securefl.errors import BadInput
from securefl.evaluation import accuracy
from securefl.pilots import breast_cancer
from securefl.pilots.breast_cancer import PILOT


def test_clients_have_the_declared_rows_and_different_balance() -> None:
    hospitals = [PILOT.load(client) for client in PILOT.clients]
    assert tuple(len(data) for data in hospitals) == breast_cancer.ROWS
    assert [int(data.labels.sum()) for data in hospitals] == [62, 58, 41, 102, 23]


def test_every_record_is_at_one_hospital_or_in_the_test_set() -> None:
    parts = [*(PILOT.load(client) for client in PILOT.clients), PILOT.test()]
    raw, labels = load_breast_cancer(return_X_y=True)
    rows = np.concatenate([np.column_stack([data.features, data.labels]) for data in parts])
    everything = np.column_stack([breast_cancer._scale(raw), labels])
    assert len(rows) == 569
    assert np.array_equal(np.unique(rows, axis=0), np.unique(everything, axis=0))


def test_the_public_test_set_is_every_fifth_record() -> None:
    raw, labels = load_breast_cancer(return_X_y=True)
    test = PILOT.test()
    assert len(test) == 113
    assert np.array_equal(test.features, breast_cancer._scale(raw[4::5]))
    assert np.array_equal(test.labels, labels[4::5])


def test_scaling_uses_constants_only() -> None:
    raw, _ = load_breast_cancer(return_X_y=True)
    together, alone = breast_cancer._scale(raw), breast_cancer._scale(raw[17:18])
    assert np.array_equal(together[17:18], alone)
    assert np.abs(together).max() == 1
    assert any("scaling constants computed from these records" in hazard.text for hazard in PILOT.hazards)


def test_the_ranges_are_the_published_ones() -> None:
    raw, _ = load_breast_cancer(return_X_y=True)
    low, high = np.array(breast_cancer._PUBLISHED_RANGES).T
    np.testing.assert_allclose(low, raw.min(axis=0), atol=5.1e-4)
    np.testing.assert_allclose(high, raw.max(axis=0), atol=5.1e-4)


def test_declared_weights_follow_declared_rows() -> None:
    assert PILOT.rows == breast_cancer.ROWS
    assert PILOT.weights == tuple(round(rows / max(breast_cancer.ROWS), 2) for rows in breast_cancer.ROWS)


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(BadInput, match="no client 'hospital-9'"):
        PILOT.load("hospital-9")


def test_the_recipes_reach_the_promised_accuracy() -> None:
    # Worst of 5 draws of noise, replayed so that the test does not depend on luck; `tune --report` draws anew.
    clients, test = [PILOT.load(client) for client in PILOT.clients], PILOT.test()
    draws = [random.Random(seed).randbytes for seed in range(5)]  # noqa: S311
    assert min(accuracy(simulate(PILOT, PILOT.private, clients, draw), test) for draw in draws) >= 0.92
    assert accuracy(simulate(PILOT, PILOT.public, clients), test) >= 0.95
