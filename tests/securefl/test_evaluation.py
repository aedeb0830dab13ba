from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.evaluation import accuracy, centralised_accuracy
from securefl.pilots import Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD


class Echo(nn.Module):
    """Predicts the class that the only feature names."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(features[:, 0].long(), 3).float()


def separable(count: int, seed: int) -> Dataset:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 2)).astype(np.float32)
    return Dataset(features, (features[:, 0] > 0).astype(np.int64))


def test_accuracy_is_the_share_of_right_predictions() -> None:
    data = Dataset(np.array([[0], [1], [2], [2]], np.float32), np.array([0, 1, 2, 0]))
    assert accuracy(Echo(), data) == 0.75


def test_a_large_test_set_is_counted_in_full() -> None:
    labels = np.arange(10_000) % 3
    wrong = np.where(np.arange(10_000) < 2_500, (labels + 1) % 3, labels)
    assert accuracy(Echo(), Dataset(wrong[:, None].astype(np.float32), labels)) == 0.75


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_is_that_of_the_model_in_evaluation_mode(training: bool) -> None:
    module = nn.Sequential(nn.Dropout(0.9), Echo()).train(training)
    data = Dataset(np.full((200, 1), 2, np.float32), np.full(200, 2))
    assert accuracy(module, data) == 1.0
    assert module.training is training


@pytest.mark.parametrize("mechanism", [SGD(1.0, 10), DPSGD(100.0, 1.0, 10)])
def test_the_twin_trains_on_all_rows_without_noise(mechanism: SGD | DPSGD) -> None:
    clients = [separable(50, seed) for seed in range(3)]
    recipe = Recipe(mechanism, LocalOptimizer(1.0), rounds=5)
    assert centralised_accuracy(lambda: nn.Linear(2, 2), 0, clients, separable(300, 9), recipe) > 0.95


def test_a_twin_of_nobody_is_refused() -> None:
    recipe = Recipe(SGD(1.0, 1), LocalOptimizer(1.0), rounds=1)
    with pytest.raises(BadInput, match="at least one"):
        centralised_accuracy(lambda: nn.Linear(2, 2), 0, [], separable(3, 0), recipe)
