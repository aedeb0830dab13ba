from __future__ import annotations

import copy
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from securefl import training, vector
from securefl.data import Dataset
from securefl.errors import UnsupportedModel
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import gaussian
from securefl.training import Pace
from securefl.training.batches import Batch
from securefl.training.gradients import add_clipped
from securefl.training.pace import choose
from securefl.training.private import Mode, Recorded

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as in train, which says why

MODES: tuple[Mode, ...] = get_args(Mode)
QUIET = 1e-12  # a noise multiplier so small that an update shows its clipped sum


class Words(nn.Module):
    """An embedding and a linear layer; words come as floats, as all features do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.embedding(features.long()).mean(dim=1))
        return outputs


class Tied(nn.Module):
    """One layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.twice(torch.tanh(self.twice(features))))
        return outputs


class Scaled(nn.Module):
    """A parameter of its own beside layers: opacus takes the gradients of the whole by functorch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.last = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(features * self.scale)
        return outputs


class Sequence(nn.Module):
    """Linear layers over the steps of a sequence, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(torch.tanh(self.inner(features.view(-1, 3, 2)))).mean(dim=1)
        return outputs


class Flattened(nn.Module):
    """The steps of all sequences as the rows of one batch: clipping would bound a step, and not a record."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(features.reshape(-1, 2)).reshape(-1, 3, 3).mean(dim=1)
        return outputs


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 3)
    )


MODELS = [perceptron, convolution, Words, Tied, Scaled, Sequence]


def records(count: int = 40, seed: int = 0) -> Dataset:
    """Six features from 0 to 29: numbers to some models, words to others."""
    generator = np.random.default_rng(seed)
    return Dataset(generator.integers(0, 30, (count, 6)).astype(np.float32), generator.integers(0, 3, count))


def batch(count: int = 12) -> Batch:
    data = records(count)
    return Batch(torch.from_numpy(data.features), torch.from_numpy(data.labels))


def built(model: Callable[[], nn.Module]) -> nn.Module:
    return vector.build(model, seed=1).train()


def clipped(module: nn.Module, mode: Mode, of: Batch, clip: float) -> torch.Tensor:
    recorded = Recorded(module, mode)
    total = torch.zeros(recorded.dimension, dtype=torch.float64)
    add_clipped(recorded.gradients(of), clip, total)
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clip", [0.3, 1e3])
def test_the_clipped_sum_is_that_of_gradients_taken_one_by_one(
    model: Callable[[], nn.Module], mode: Mode, clip: float
) -> None:
    module, given = built(model), batch()
    expected = torch.zeros(())
    for features, label in zip(*given, strict=True):
        loss = nn.functional.cross_entropy(module(features[None]), label[None])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(module.parameters()))])
        expected = expected + gradient * min(1.0, clip / float(gradient.norm()))
    found = clipped(built(model), mode, given, clip)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_clipped_sum_is_that_of_opacus(mode: Mode) -> None:
    module, given = built(perceptron), batch()
    wrapped = GradSampleModule(module, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=1.0), noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=1
    )
    nn.functional.cross_entropy(wrapped(given.features), given.labels, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    expected = torch.cat([parameter.summed_grad.flatten() for parameter in module.parameters()])
    torch.testing.assert_close(clipped(built(perceptron), mode, given, 0.5).float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_all_modes_and_pieces_give_the_same_update_for_the_same_randomness(model: Callable[[], nn.Module]) -> None:
    module, data, stream = built(model), records(), DPSGD(1.0, 0.5, 3, 0.8)
    updates = [
        training.train(module, data, stream, LocalOptimizer(0.5), Replay(), pace=Pace(mode, at_once))
        for mode in MODES
        for at_once in (512, 7)
    ]
    assert updates[0].any()
    for update in updates[1:]:
        np.testing.assert_allclose(update, updates[0], rtol=1e-4, atol=1e-5)


class Replay:
    """The same bytes at every start: of a generator that is no secret."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(5)

    def __call__(self, count: int) -> bytes:
        return self._generator.bytes(count)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("weight", "feature"), [(1e36, 1e4), (1e30, 1e30)])
def test_a_record_that_overflows_counts_as_zero_in_all_modes(mode: Mode, weight: float, feature: float) -> None:
    module = built(lambda: nn.Linear(6, 3))
    vector.load(module, np.array([weight] + [0.0] * 20, np.float32))
    data = records()
    data.features[:, 0] = 0.0
    data.features[4, 0] = feature
    others = Dataset(np.delete(data.features, 4, axis=0), np.delete(data.labels, 4), size=40)
    quiet, pace = DPSGD(QUIET, 1.0, 1, 0.7), Pace(mode, 512)
    with_it, without_it = (
        training.train(module, given, quiet, LocalOptimizer(40.0), pace=pace) for given in (data, others)
    )
    np.testing.assert_allclose(with_it, without_it, atol=1e-3)
    assert np.abs(without_it).max() > 1.0


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_with_more_rows_than_records_is_refused(mode: Mode) -> None:
    with pytest.raises(UnsupportedModel, match=r"parameter 'last\.weight' has 6 gradients for 2 records"):
        choose(built(Flattened), records(), DPSGD(1.0, 0.5, 1))
    with pytest.raises(UnsupportedModel, match=r"has 36 gradients for 12 records: keep one record a row"):
        clipped(built(Flattened), mode, batch(), 1.0)


def test_autograd_makes_no_gradient_of_the_whole_batch_for_a_weight_with_a_bias() -> None:
    module, made = built(lambda: nn.Linear(6, 3)), []
    for name, parameter in module.named_parameters():
        parameter.register_hook(lambda _, name=name: made.append(name))
    Recorded(module, "ghost").gradients(batch())
    assert made == ["bias"]


def of_rounding_only(seed: int) -> nn.Module:
    """What comes back to the first layer is the rounding error of a sum that is zero, 1e8 times."""
    module = vector.build(lambda: nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 10)), seed)
    assert isinstance(module, nn.Sequential)
    first, last = module
    with torch.no_grad():
        first.weight.mul_(1e-9)
        last.weight.fill_(1e8)
        last.bias.copy_(torch.from_numpy(gaussian(10, 1.0)))
    last.requires_grad_(False)
    return module


@pytest.mark.attack("a gradient that is nothing but rounding")
def test_a_second_backward_pass_rounds_anew_and_lets_more_than_the_clip_through() -> None:
    """By Opacus's ghost clipping, for parameters that a server may choose; the sum here is of what was measured."""
    lengths: dict[str, list[float]] = {"opacus": [], "ghost": [], "hooks": []}
    for seed in range(40):
        module, one = of_rounding_only(seed), Batch(torch.randn(1, 4), torch.tensor([0]))
        for mode in MODES:
            lengths[mode].append(float(clipped(copy.deepcopy(module), mode, one, 1.0).norm()))
        lengths["opacus"].append(ghost_clipped_by_opacus(module, one))
    assert max(lengths["opacus"]) > 1.5
    assert max(*lengths["ghost"], *lengths["hooks"]) <= 1 + 2**-17


def ghost_clipped_by_opacus(module: nn.Module, one: Batch) -> float:
    wrapped = GradSampleModuleFastGradientClipping(module, loss_reduction="sum", max_grad_norm=1.0)
    first = next(module.parameters())
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD([first], lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    criterion = nn.CrossEntropyLoss(reduction="sum")
    loss = DPLossFastGradientClipping(wrapped, optimizer, criterion, loss_reduction="sum")
    loss(wrapped(one.features), one.labels).backward()
    assert first.grad is not None
    return float(first.grad.norm())
