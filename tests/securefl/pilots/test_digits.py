from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.tune import goodness, simulate
from securefl.errors import BadInput
from securefl.pilots import digits
from securefl.pilots.digits import PILOT


def test_every_record_is_at_one_client_or_in_the_test_set() -> None:
    parts = [PILOT.load(client) for client in PILOT.clients]
    assert tuple(map(len, parts)) == digits.ROWS
    raw, labels = load_digits(return_X_y=True)
    rows = np.concatenate([np.column_stack([data.features, data.labels]) for data in (*parts, PILOT.test())])
    assert len(rows) == 1797
    everything = np.column_stack([raw / 16, labels]).astype(np.float32)
    assert np.array_equal(np.unique(rows, axis=0), np.unique(everything, axis=0))


def test_clients_see_all_digits() -> None:
    assert all(len(np.unique(PILOT.load(client).labels)) == 10 for client in PILOT.clients)


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(BadInput, match="digits has no client 'client-11'"):
        PILOT.load("client-11")


@pytest.mark.slow
def test_the_recipes_reach_the_promised_accuracy() -> None:
    # Mean of 5 draws of noise, replayed so that the test does not depend on luck: a draw strays by 1.4 points.
    clients, test = [PILOT.load(client) for client in PILOT.clients], PILOT.test()
    draws = [random.Random(seed).randbytes for seed in range(5)]  # noqa: S311
    private = [goodness(PILOT, simulate(PILOT, PILOT.private, clients, draw), test) for draw in draws]
    assert sum(private) / len(private) >= 0.88
    assert goodness(PILOT, simulate(PILOT, PILOT.public, clients), test) >= 0.94
