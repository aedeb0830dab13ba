"""What goes wrong with DP-SGD elsewhere without anyone noticing: each shown to happen, and not to happen here."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from securefl import training, vector
from securefl.data import Dataset
from securefl.errors import UnsupportedModel
from securefl.plan import LocalOptimizer
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, SGD, Training
from securefl.training import Pace
from securefl.training.private import Mode

UNIT = LocalOptimizer(1.0)
QUIET = 1e-12  # a noise multiplier so small that an update shows its clipped sum
ROUND, DELTA = DPSGD(noise_multiplier=1.0, sampling_rate=0.05, steps=20), 1e-5


def records(count: int = 200, seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)
    return Dataset(generator.normal(size=(count, 3)).astype(np.float32), generator.integers(0, 2, count))


def linear(features: int = 3) -> nn.Module:
    return vector.build(lambda: nn.Linear(features, 2), seed=1)


def without(data: Dataset, row: int) -> Dataset:
    return Dataset(np.delete(data.features, row, axis=0), np.delete(data.labels, row), data.declared_size)


class ByOpacus:
    """Rounds of 20 steps on 200 records, at most one round for each engine."""

    def __init__(self, engine: PrivacyEngine, poisson_sampling: bool) -> None:
        data = records()
        loader = DataLoader(TensorDataset(torch.from_numpy(data.features), torch.from_numpy(data.labels)), 10)
        module = linear()
        self._engine = engine
        self._module, self._optimizer, self._loader = engine.make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            data_loader=loader,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            poisson_sampling=poisson_sampling,
        )

    def one_round(self) -> tuple[float, set[int]]:
        """The epsilon that the engine now reports, and the sizes of the batches."""
        sizes = set()
        for features, labels in self._loader:
            sizes.add(len(labels))
            self._optimizer.zero_grad()
            nn.functional.cross_entropy(self._module(features), labels).backward()
            self._optimizer.step()
        return self._engine.get_epsilon(DELTA), sizes


@contextmanager
def quietly() -> Iterator[None]:
    """Opacus warns of its generator, of hooks, and of its orders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_a_new_privacy_engine_every_round_forgets_the_rounds_before_it() -> None:
    """Two rounds cost what two rounds cost, with one engine or with two: here they are counted from the charges."""
    with quietly():
        reported = [ByOpacus(PrivacyEngine(accountant="rdp"), True).one_round()[0] for _ in range(2)]
    assert reported[0] == reported[1]
    one, two = (epsilon([ROUND] * rounds, DELTA) for rounds in (1, 2))
    assert two > 1.1 * one
    assert two == epsilon([DPSGD(1.0, 0.05, 40)], DELTA)


def test_opacus_without_poisson_sampling_reports_the_epsilon_of_poisson_sampling() -> None:
    """In batches of fixed rows a record is in one step for certain: the Gaussian mechanism, without amplification."""
    with quietly():
        fixed, sizes = ByOpacus(PrivacyEngine(accountant="rdp"), False).one_round()
        sampled, _ = ByOpacus(PrivacyEngine(accountant="rdp"), True).one_round()
    assert sizes == {10}
    assert fixed == sampled
    assert epsilon([DPSGD(1.0, 1.0, 1)], DELTA) > 1.5 * fixed


class Counting(nn.Module):
    """Remembers how many records each batch has: rows that are not all zeros, with which batches are filled up."""

    sizes: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.sizes.append(int(features.any(dim=1).sum()))
        outputs: torch.Tensor = self.last(features)
        return outputs


def test_nothing_but_poisson_samples_can_be_trained_on() -> None:
    """A batch's size is binomial, around 10 of 200; no argument brings a loader, a batch size or an order."""
    Counting.sizes.clear()
    training.train(Counting(), records(), DPSGD(1.0, 0.05, 60), UNIT, pace=Pace("ghost", 200))
    sampled = [size for size in Counting.sizes if size]  # checks are made on zeros
    assert len(set(sampled)) > 5
    assert abs(np.mean(sampled) - 10) < 6 * math.sqrt(9.5 / 50)  # six deviations
    assert list(inspect.signature(training.train).parameters) == [
        "module", "data", "mechanism", "optimizer", "random", "device", "pace", "tell", "correction"
    ]  # fmt: skip
    assert all("sampling_rate" in kind.__struct_fields__ for kind in Training.__args__)


def divisor(update: NDArray[np.float32], mechanism: DPSGD) -> float:
    """What an attacker takes the divisor to be: the noise's known deviation over the one in the update."""
    return mechanism.noise_multiplier * mechanism.clip / float(np.std(update.astype(np.float64)))


@pytest.mark.attack("a divisor that counts records")
def test_dividing_by_the_number_of_records_that_are_there_tells_it() -> None:
    """The noise that should hide a record is divided by a count of records, and 40,002 coordinates show it."""
    heavy = DPSGD(noise_multiplier=1000.0, sampling_rate=1.0, steps=1)  # epsilon is below 0.01
    module, features = linear(20_000), np.zeros((10, 20_000), np.float32)
    data = Dataset(features, np.zeros(10, np.int64), size=10)
    counted = [Dataset(rows.features, rows.labels) for rows in (data, without(data, 0))]  # each divides by its own
    declared = [data, without(data, 0)]
    # The estimate errs by 1 / sqrt(80,004) = 0.35 %: 10 and 9 are 30 deviations apart, and 0.5 is more than 14.
    assert [round(divisor(training.train(module, d, heavy, UNIT), heavy)) for d in counted] == [10, 9]
    assert [round(divisor(training.train(module, d, heavy, UNIT), heavy)) for d in declared] == [10, 10]


def standardised(data: Dataset) -> Dataset:
    """Scaled by the data's own mean and deviation, as most tutorials do."""
    scaled = (data.features - data.features.mean(axis=0)) / data.features.std(axis=0)
    return Dataset(scaled, data.labels, data.declared_size)


def by_constants(data: Dataset) -> Dataset:
    return Dataset((data.features - np.float32(0.5)) / np.float32(2.0), data.labels, data.declared_size)


@pytest.mark.attack("features scaled by their own mean")
def test_scaling_by_the_datas_own_mean_and_deviation_lets_one_record_move_all_others() -> None:
    """One record changes every row, so that no clipping of single rows bounds what it does to the sum."""
    data = records(40)
    data.features[7] = 50.0
    neighbour, moved = without(data, 7), []
    for scale in (standardised, by_constants):
        one, other = scale(data), scale(neighbour)
        same = np.delete(one.features, 7, axis=0) == other.features
        assert same.all() if scale is by_constants else not same.any()
        sums = [
            training.train(linear(), d, DPSGD(QUIET, 1.0, 1), LocalOptimizer(40.0)).astype(np.float64)
            for d in (one, other)
        ]
        moved.append(float(np.linalg.norm(sums[0] - sums[1])))
    assert moved[0] > 2.0
    assert moved[1] <= 1.0 + 1e-5


def test_batch_normalisation_is_refused_since_it_mixes_records() -> None:
    with pytest.raises(UnsupportedModel, match="layer '1' is BatchNorm1d, which mixes the records of a batch"):
        training.check(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))


def test_an_embedding_that_rescales_the_words_of_its_records_is_refused() -> None:
    """``max_norm`` rewrites the rows that a batch uses, in the forward pass, without any noise."""
    with pytest.raises(UnsupportedModel, match=r"layer .0. .Embedding. rescales the rows that the records use"):
        training.check(nn.Sequential(nn.Embedding(5, 2, max_norm=1.0), nn.Flatten(), nn.Linear(6, 2)))


def test_a_step_with_an_empty_batch_is_noised_and_counted_like_any_other() -> None:
    """Else an update without noise would tell that nobody was sampled. Ten empty steps: ten times the variance."""
    module = linear(20_000)
    data = Dataset(np.zeros((2, 20_000), np.float32), np.zeros(2, np.int64))
    rare = LocalOptimizer(2 * 1e-9)  # times the expected size: a unit step
    one, ten = (training.train(module, data, DPSGD(1.0, 1e-9, steps), rare).astype(np.float64) for steps in (1, 10))
    # of 40,002 squares the mean errs by sqrt(2 / 40,002) = 0.7 %: 0.1 is 14 deviations
    assert np.mean(one**2) == pytest.approx(1.0, rel=0.1)
    assert np.mean(ten**2) == pytest.approx(10.0, rel=0.1)


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter, the second half of which starts at zero (Hu et al., ICLR 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        self.down, self.up = nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False)
        self.last = nn.Linear(4, 2)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.frozen(features) + self.up(self.down(features)))
        return outputs


def test_an_optimizer_made_before_the_model_moves_trains_nothing_and_ours_is_made_after() -> None:
    module, data = Adapted(), records()
    optimizer = torch.optim.SGD([parameter for parameter in module.parameters() if parameter.requires_grad], lr=1.0)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        module.to(torch.float64).to(torch.float32)
        update = training.train(module, data, DPSGD(1.0, 0.5, 2), UNIT)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    before = vector.flatten(module)
    nn.functional.cross_entropy(module(torch.from_numpy(data.features)), torch.from_numpy(data.labels)).backward()
    optimizer.step()
    assert np.array_equal(vector.flatten(module), before)
    sizes = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    assert all(part.all() for part in np.split(update, np.cumsum(sizes)[:-1]))


class Remade(Adapted):
    """Makes its adapter anew when it is first used, as a wrapper does that moves it to the features' device."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.up.weight = nn.Parameter(self.up.weight.detach().to(features.device))
        return super().forward(features)


@pytest.mark.parametrize("mechanism", [DPSGD(1.0, 1.0, 1), SGD(1.0, 1)])
def test_a_parameter_that_is_made_anew_in_forward_is_named_and_refused(mechanism: Training) -> None:
    with pytest.raises(UnsupportedModel, match=r"parameter 'up\.weight' is made anew in forward"):
        training.train(Remade(), records(), mechanism, UNIT)


class Fragile(nn.Module):
    """Its code fails on a batch with a record whose first feature is above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if (features[:, 0] > 100).any():
            raise IndexError("no such entry")
        outputs: torch.Tensor = self.last(features)
        return outputs


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_a_record_on_which_the_model_s_code_fails_adds_nothing_and_stops_nothing(mode: Mode) -> None:
    without = records()
    rows = np.vstack([without.features, np.full((1, 3), 1000.0, np.float32)])
    with_it = Dataset(rows, np.append(without.labels, 0), size=len(without))
    quiet = DPSGD(1e-6, 1.0, 3)
    module = vector.build(Fragile, 0)
    updates = [training.train(module, data, quiet, UNIT, pace=Pace(mode, 512)) for data in (without, with_it)]
    np.testing.assert_allclose(updates[0], updates[1], atol=1e-4)


def test_parameters_that_are_not_float32_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="float32"):
        training.check(nn.Linear(3, 2).to(torch.bfloat16))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(features - features.mean(dim=0))
        return outputs


def test_what_mixes_records_by_hand_or_by_a_layer_is_found() -> None:
    with pytest.raises(UnsupportedModel, match="others in its batch"):
        training.check_apart(Mixing(), records())
    with pytest.raises(UnsupportedModel, match="others in its batch"):
        training.check_apart(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=0)), records())
    training.check_apart(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)), records())
