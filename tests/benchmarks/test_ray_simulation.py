from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ray_simulation as bench
from benchmarks.__main__ import SUBJECTS


def test_it_is_a_subject_of_the_one_command() -> None:
    assert "ray_simulation" in SUBJECTS


def test_the_thousand_clients_have_all_records_and_none_twice() -> None:
    clients = bench.members(bench.names(bench.CLIENTS))
    found = np.concatenate([client._material.data.features for client in clients])
    train = bench.digits()[0].features
    assert found.shape == train.shape
    assert (np.sort(found, axis=0) == np.sort(train, axis=0)).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves files to the garbage collector
def test_a_small_simulation_counts_clients_time_and_memory() -> None:
    rows = {row.name: row for row in bench.simulation_rows(clients=6, rounds=1)}
    assert rows["clients_simulated_ray"].value == 6
    assert rows["round_seconds_ray_6"].value > 0
    assert 0.01 < rows["actors_peak_ray_6"].value < 8
    assert rows["actors_ray_6"].value >= 1
