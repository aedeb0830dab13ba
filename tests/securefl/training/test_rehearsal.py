from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import vector
from securefl.data import Dataset
from securefl.errors import TrainingFailed
from securefl.training.rehearsal import confirm, rehearse

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

DATA = Dataset(np.ones((4, 3), np.float32), np.array([0, 1, 0, 1]))


class Checked(nn.Sequential):
    """A classifier that looks at what it says."""

    def check_moved(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        said = []
        for parameters in (before, after):
            module = copy.deepcopy(self)
            vector.load(module, parameters)
            said.append(module(torch.ones(1, 3)))
        if torch.equal(*said):
            raise TrainingFailed("nothing moved")


class Elsewhere(Checked):
    """Computes with weights that nobody trains; its own take part, by nothing."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(features) + 1


def test_a_module_that_trains_passes_and_is_left_as_it_was() -> None:
    module = Checked(nn.Linear(3, 2))
    before = vector.flatten(module)
    rehearse(module, DATA)
    assert np.array_equal(vector.flatten(module), before)


def test_a_module_that_trains_nothing_is_refused() -> None:
    with pytest.raises(TrainingFailed, match="nothing moved"):
        rehearse(Elsewhere(nn.Linear(3, 2)), DATA)


def test_a_module_that_does_not_check_itself_is_let_through() -> None:
    rehearse(nn.Linear(3, 2), DATA)
    confirm(nn.Linear(3, 2), np.zeros(8, np.float32), pytest.fail)


def test_what_training_did_is_told_to_the_owner() -> None:
    module, told = Checked(nn.Linear(3, 2)), list[str]()
    confirm(module, vector.flatten(module) + 1, told.append)
    assert told == []
    confirm(module, vector.flatten(module), told.append)
    assert told == ["nothing moved"]
