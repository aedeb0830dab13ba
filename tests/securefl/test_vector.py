from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from securefl import vector
from securefl.errors import UnsupportedModel


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_the_same_seed_builds_the_same_module() -> None:
    one, two = (vector.flatten(vector.build(two_layers, seed=7)) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, vector.flatten(vector.build(two_layers, seed=8)))


def test_building_leaves_the_generator_of_the_caller_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    vector.build(two_layers, seed=7)
    assert torch.equal(torch.rand(3), expected)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=26, max_size=26))
def test_what_is_loaded_is_what_is_flattened(values: list[float]) -> None:
    module, given_vector = two_layers(), np.array(values, dtype=np.float32)
    vector.load(module, given_vector)
    assert np.array_equal(vector.flatten(module), given_vector)


def test_a_flat_vector_is_a_copy_both_ways() -> None:
    module = two_layers()
    flat = vector.flatten(module)
    before = flat.copy()
    vector.load(module, flat + 1)
    assert np.array_equal(flat, before)
    loaded = vector.flatten(module)
    flat += 5
    assert np.array_equal(vector.flatten(module), loaded)


def test_frozen_parameters_stay_out_of_the_vector() -> None:
    module = two_layers()
    frozen = module[0].requires_grad_(False).state_dict()["weight"].clone()
    assert vector.flatten(module).shape == (10,)
    vector.load(module, np.zeros(10, np.float32))
    assert torch.equal(module[0].state_dict()["weight"], frozen)


@pytest.mark.parametrize("shape", [(25,), (27,), (26, 1), ()])
def test_a_vector_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    module = two_layers()
    before = vector.flatten(module)
    with pytest.raises(ValueError, match="26 trainable parameters"):
        vector.load(module, np.zeros(shape, np.float32))
    assert np.array_equal(vector.flatten(module), before)


def test_the_architecture_names_shapes_and_not_values() -> None:
    name = vector.architecture(vector.build(two_layers, 1))
    assert name == vector.architecture(vector.build(two_layers, 2))
    assert len(name) == 64
    assert name != vector.architecture(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))


def test_a_factory_that_makes_no_module_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"returned int: return a torch\.nn\.Module"):
        vector.build(lambda: cast(nn.Module, 3), 0)


def test_a_module_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no trainable parameter"):
        vector.build(nn.ReLU, 0)
