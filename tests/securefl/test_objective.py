"""What a model is trained for, as the labels' type says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securefl import evaluation, objective
from securefl.data import Dataset
from securefl.errors import BadInput, UnsupportedModel
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.training import check_labels, train
from securefl.vector import flatten, load

RANDOM = np.random.default_rng(8)


class NextToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.embed(tokens))
        return found


def line() -> Dataset:
    features = RANDOM.normal(size=(200, 2)).astype(np.float32)
    return Dataset(features, features @ np.array([1.0, -2.0], np.float32) + 0.5)


def successors() -> Dataset:
    """After each token comes the next number, modulo 5; the last place predicts nothing."""
    tokens = RANDOM.integers(0, 5, (60, 6))
    labels = (tokens + 1) % 5
    labels[:, -1] = objective.IGNORED
    return Dataset(tokens, labels)


def trained(module: nn.Module, data: Dataset, mechanism: SGD | DPSGD, rate: float) -> nn.Module:
    load(module, flatten(module) + train(module, data, mechanism, LocalOptimizer(rate)))
    return module


def test_real_numbers_are_fitted_by_least_squares() -> None:
    module = trained(nn.Linear(2, 1), line(), SGD(1.0, 200), 0.2)
    assert torch.allclose(module.weight, torch.tensor([[1.0, -2.0]]), atol=1e-3)  # type: ignore[arg-type]
    assert evaluation.accuracy(module, line()) == 1.0


def test_the_next_token_is_learned_and_what_is_ignored_counts_nowhere() -> None:
    data = successors()
    module = trained(NextToken(), data, SGD(1.0, 200), 2.0)
    assert evaluation.accuracy(module, data) == 1.0


@pytest.mark.parametrize(("module", "data"), [(nn.Linear(2, 1), line()), (NextToken(), successors())])
def test_private_training_bounds_what_one_record_moves(module: nn.Module, data: Dataset) -> None:
    """Almost without noise: one step moves the model by the clip, in units of rate / size, for each record at most."""
    mechanism = DPSGD(noise_multiplier=1e-9, sampling_rate=1.0, steps=1, clip=0.001)
    moved = train(module, data, mechanism, LocalOptimizer(1.0))
    assert 0 < np.linalg.norm(moved) <= 0.001 + 1e-6


def test_a_tokens_loss_is_the_mean_of_those_that_count() -> None:
    outputs = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 2, objective.IGNORED], [objective.IGNORED] * 3])
    expected = nn.functional.cross_entropy(outputs[0, :2], labels[0, :2])
    assert torch.allclose(objective.losses(outputs, labels), torch.stack([expected, torch.zeros(())]))


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64)),
        (torch.zeros(4, 2, 5), torch.zeros(4, 3, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4)),
    ],
)
def test_outputs_of_another_shape_are_refused(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(UnsupportedModel, match="return one row a record"):
        objective.check_outputs(outputs, labels)


def test_a_token_without_output_is_refused() -> None:
    with pytest.raises(BadInput, match="labels must be 0 to 4"):
        check_labels(NextToken(), Dataset(np.zeros((1, 2), np.int64), np.array([[5, objective.IGNORED]])))
