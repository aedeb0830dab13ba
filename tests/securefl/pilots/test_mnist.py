from __future__ import annotations

import numpy as np
import pytest

from securefl import vector
from securefl.errors import BadInput
from securefl.pilots import mnist
from securefl.pilots.mnist import PILOT, SHARDS, THOUSAND


def test_the_networks_have_the_published_sizes() -> None:
    assert len(vector.flatten(vector.build(mnist.convolutional, 0))) == 1_663_370
    assert len(vector.flatten(vector.build(mnist.two_layer, 0))) == 199_210


@pytest.mark.needs_data
@pytest.mark.parametrize("pilot", [PILOT, SHARDS, THOUSAND], ids=lambda pilot: pilot.name)
def test_every_image_is_at_one_client(pilot: mnist.Pilot) -> None:
    split = mnist._split(pilot.name)
    assert len(split) == len(pilot.clients)
    assert {len(rows) for rows in split} == set(pilot.rows)
    assert sorted(np.concatenate(split).tolist()) == list(range(mnist.IMAGES))


@pytest.mark.needs_data
def test_shuffled_clients_see_all_digits_and_sharded_ones_few() -> None:
    seen = [len(np.unique(PILOT.load(client).labels)) for client in PILOT.clients[:20]]
    assert min(seen) == 10
    for pilot in (SHARDS, THOUSAND):
        labels = mnist._records("train")[1]
        few = [len(np.unique(labels[rows])) for rows in mnist._split(pilot.name)]
        assert max(few) <= 4 and np.mean(np.array(few) <= 2) > 0.8


@pytest.mark.needs_data
def test_pixels_are_from_0_to_1_and_the_test_set_is_mnists() -> None:
    test = PILOT.test()
    assert test.features.shape == (10_000, 1, 28, 28)
    assert (test.features.min(), test.features.max()) == (0, 1)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_clients_are_named_by_number() -> None:
    assert (PILOT.clients[0], PILOT.clients[-1], THOUSAND.clients[0]) == ("client-001", "client-100", "client-0001")
    with pytest.raises(BadInput, match="mnist-shards has no client 'client-101': its clients are client-001 to"):
        SHARDS.load("client-101")
