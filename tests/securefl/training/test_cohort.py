"""Clients that are trained in one pass: each as if it were alone, and as Opacus clips."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from securefl import training, vector
from securefl.data import Dataset
from securefl.errors import BadInput, UnsupportedModel
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Training
from securefl.privacy.noise import Random, poisson_sample
from securefl.privacy.simulation import seeded
from securefl.training import cohort
from securefl.training.batches import Batch
from securefl.training.cohort import Member, _Descent
from securefl.training.gradients import add_clipped
from securefl.training.private import CLIP_MARGIN, Recorded
from securefl.training.stacked import Stacked, known

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as in train, which says why

PLAIN = LocalOptimizer(0.1)
OTHER_SIZES = (40, 3, 70, 17)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))


def convolution() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.GroupNorm(2, 4), nn.Tanh()),
        *(nn.Conv2d(4, 3, (2, 1), stride=(1, 2), bias=False), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(3, 3)),
    )


def steps() -> nn.Module:
    """Linear layers and a norm over the steps of a sequence."""
    return nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 5), nn.LayerNorm(5), nn.GELU(), nn.Flatten(), nn.Linear(15, 3)
    )


MODELS = [perceptron, convolution, steps]


def built(model: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    return vector.build(model, seed)


def records(count: int = 40, seed: int = 0, size: int | None = None) -> Dataset:
    generator = np.random.default_rng(seed)
    return Dataset(generator.normal(size=(count, 6)).astype(np.float32), generator.integers(0, 3, count), size)


def source(place: int) -> Random:
    return seeded(7, f"client-{place}", 1, 1, "training")


def members(data: list[Dataset]) -> list[Member]:
    return [Member(each, source(place)) for place, each in enumerate(data)]


def alone(module: nn.Module, data: list[Dataset], mechanism: Training, optimizer: LocalOptimizer = PLAIN) -> list:
    return [training.train(module, each, mechanism, optimizer, source(place)) for place, each in enumerate(data)]


def opacus_sum(module: nn.Module, batch: Batch, clip: float) -> NDArray[np.float32]:
    """Opacus's own clipped sum, zeros for an empty batch."""
    local = GradSampleModule(copy.deepcopy(module).train(), loss_reduction="sum")
    if not len(batch.labels):
        return np.zeros_like(vector.flatten(module))
    optimizer = DPOptimizer(
        torch.optim.SGD(local.parameters(), lr=1.0), noise_multiplier=1.0, max_grad_norm=clip, expected_batch_size=1
    )
    nn.functional.cross_entropy(local(batch.features), batch.labels, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    return torch.cat([each.summed_grad.flatten() for each in local.parameters()]).numpy()


def our_sum(module: nn.Module, batch: Batch, clip: float) -> NDArray[np.float64]:
    """That of training alone."""
    recorded = Recorded(copy.deepcopy(module).train(), "ghost")
    total = torch.zeros(recorded.dimension, dtype=torch.float64)
    if len(batch.labels):
        add_clipped(recorded.gradients(batch), clip, total)
    return total.numpy()


# ---- the same sums


@st.composite
def perceptrons(draw: st.DrawFn) -> nn.Module:
    widths = [6, *draw(st.lists(st.integers(1, 20), max_size=3)), 3]
    bias, norm = draw(st.booleans()), draw(st.booleans())
    between = draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid]))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=bias), *([nn.LayerNorm(after)] if norm else []), between()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], 3))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    channels, kernel = draw(st.integers(1, 4)) * 2, draw(st.integers(1, 3))
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(2, 3))
    first = nn.Conv2d(1, channels, kernel, stride, padding, bias=draw(st.booleans()))
    norm = [nn.GroupNorm(2, channels)] if draw(st.booleans()) else []
    pool = [draw(st.sampled_from([nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1)]))]
    second = [nn.Conv2d(channels, 3, 1), nn.ReLU()] if draw(st.booleans()) else []
    body = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), first, *norm, nn.ReLU(), *pool, nn.Sequential(*second))
    module = nn.Sequential(body, nn.Flatten())
    with torch.no_grad():
        width = module(torch.zeros(1, 6)).shape[1]
    return nn.Sequential(*([body] if second else list(body)[:-1]), nn.Flatten(), nn.Linear(width, 3))


@settings(max_examples=30, deadline=None)
@given(
    module=perceptrons() | convolutions(),
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    rate=st.sampled_from([0.02, 0.2, 0.5, 1.0]),
    clip=st.sampled_from([0.3, 1.0, 1e3]),
)
def test_clipped_sums_are_those_of_opacus_and_of_training_alone(
    module: nn.Module, seed: int, sizes: list[int], rate: float, clip: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) / 2)
    data = [records(size, seed + place) for place, size in enumerate(sizes)]
    samples = [poisson_sample(len(each), rate, source(place)) for place, each in enumerate(data)]
    mechanism = DPSGD(1.0, rate, 1, clip)
    descent = _Descent(Stacked(module), members(data), mechanism, PLAIN, 16)
    for own, rows, each in zip(descent.clipped(samples, mechanism).numpy(), samples, data, strict=True):
        batch = Batch(torch.from_numpy(each.features[rows]), torch.from_numpy(each.labels[rows]))
        for expected in (opacus_sum, our_sum):
            wanted = expected(module, batch, clip * CLIP_MARGIN)
            np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("mechanism", [DPSGD(1.0, 0.3, 4), DPSGD(0.5, 0.01, 3, 0.1), SGD(0.3, 4), SGD(1.0, 2)])
@pytest.mark.parametrize("model", MODELS)
def test_an_update_is_what_training_alone_gives_from_the_same_random_bytes(
    model: Callable[[], nn.Module], mechanism: Training
) -> None:
    """Also with samples longer than one pass, with empty ones, and where sizes are declared."""
    module, optimizer = built(model), LocalOptimizer(0.1, 0.9)
    data = [records(count, place, None if place else 25) for place, count in enumerate(OTHER_SIZES)]
    before = vector.flatten(module)
    found = cohort.train(module, members(data), mechanism, optimizer)
    for update, expected in zip(found, alone(module, data, mechanism, optimizer), strict=True):
        np.testing.assert_allclose(update, expected, rtol=0, atol=2e-5)
    assert (vector.flatten(module) == before).all()


def test_each_source_is_read_as_in_training_alone() -> None:
    def listed(place: int, asked: list[int]) -> Random:
        own = source(place)
        return lambda count: (asked.append(count), own(count))[1]

    module, data, mechanism = built(perceptron), [records(size) for size in OTHER_SIZES], DPSGD(1.0, 0.2, 3)
    one, other = [], []
    cohort.train(module, [Member(each, listed(place, one)) for place, each in enumerate(data)], mechanism, PLAIN)
    training.train(module, data[0], mechanism, PLAIN, listed(0, other))
    assert sorted(one) == sorted(other * len(data))


def test_however_many_fit_in_memory_the_updates_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = built(convolution), [records(size, size) for size in OTHER_SIZES]
    whole = cohort.train(module, members(data), DPSGD(1.0, 0.3, 2), PLAIN)
    monkeypatch.setattr(cohort, "_MEMORY", 1)
    for one, other in zip(whole, cohort.train(module, members(data), DPSGD(1.0, 0.3, 2), PLAIN), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_real_numbers_are_learnt_as_well_as_classes() -> None:
    generator = np.random.default_rng(0)
    data = [
        Dataset(generator.normal(size=(n, 6)).astype(np.float32), generator.normal(size=(n, 3)).astype(np.float32))
        for n in OTHER_SIZES
    ]
    module = built(perceptron)
    found = cohort.train(module, members(data), DPSGD(1.0, 0.3, 2), PLAIN)
    for update, expected in zip(found, alone(module, data, DPSGD(1.0, 0.3, 2)), strict=True):
        np.testing.assert_allclose(update, expected, rtol=0, atol=2e-5)


# ---- nobody disturbs another


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [1e12, 3e38])
def test_a_record_that_overflows_adds_nothing_and_touches_no_other_client(
    model: Callable[[], nn.Module], size: float
) -> None:
    module, data, mechanism = built(model), [records(20, place) for place in range(3)], DPSGD(1.0, 1.0, 2)
    wild = data[1].features.copy()
    wild[4] = size * np.sign(wild[4])
    odd = [data[0], Dataset(wild, data[1].labels), data[2]]
    found, calm = (cohort.train(module, members(each), mechanism, PLAIN) for each in (odd, data))
    assert all(np.isfinite(update).all() for update in found)
    np.testing.assert_array_equal(found[0], calm[0])
    np.testing.assert_array_equal(found[2], calm[2])
    np.testing.assert_allclose(found[1], alone(module, odd, mechanism)[1], rtol=0, atol=2e-5)


def test_without_clipping_one_client_s_overflow_stays_its_own() -> None:
    module, data = built(convolution), [records(20, place) for place in range(3)]
    odd = [data[0], Dataset(data[1].features * np.float32(3e37), data[1].labels), data[2]]
    found, calm = (cohort.train(module, members(each), SGD(1.0, 3), LocalOptimizer(1e3)) for each in (odd, data))
    assert not np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[0], calm[0])
    np.testing.assert_array_equal(found[2], calm[2])


def test_noise_is_each_client_s_own_and_there_also_for_empty_batches() -> None:
    module, data = built(perceptron), [records(5)] * 3
    found = cohort.train(module, members(data), DPSGD(1.0, 1e-6, 1), PLAIN)
    assert all(np.abs(update).max() > 0 for update in found)
    assert len({update.tobytes() for update in found}) == 3


# ---- what is trained so, and what is not


class Derived(nn.Linear):
    """Could compute anything."""


class Named(nn.Module):
    """Its ``forward`` could mix rows, which are several clients' here."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(features)
        return outputs


def hooked() -> nn.Module:
    module = nn.Linear(6, 3)
    module.register_forward_hook(lambda layer, given, output: output - output.mean(0))
    return module


def overridden() -> nn.Module:
    module = nn.Linear(6, 3)
    module.forward = lambda rows: rows[:, :3]  # type: ignore[method-assign]
    return module


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    module[1].weight = module[0].weight
    return module


def twice() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    module[0].weight.requires_grad_(False)
    return module


UNKNOWN = [
    *(hooked, overridden, tied, twice, frozen, Named),
    lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout()),
    lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(inplace=True)),
    lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)),
    lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(0)),
    lambda: nn.Sequential(nn.Flatten(0), nn.Linear(6, 3)),
    lambda: nn.Sequential(Derived(6, 3)),
    lambda: nn.Sequential(nn.Embedding(6, 3), nn.Linear(3, 3)),
    lambda: nn.Sequential(nn.Linear(6, 3).double()),
    lambda: nn.Sequential(nn.Conv2d(2, 4, 2, groups=2)),
    lambda: nn.Sequential(nn.Conv2d(2, 4, 2, padding="same")),
    lambda: nn.Sequential(nn.Conv2d(2, 4, 2, padding_mode="circular", padding=1)),
    lambda: nn.Sequential(nn.Conv1d(2, 4, 2)),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
    nn.Sequential,
    nn.Tanh,
]


@pytest.mark.parametrize("model", UNKNOWN)
def test_what_is_not_a_sequence_of_known_layers_is_trained_alone(model: Callable[[], nn.Module]) -> None:
    assert not known(model())
    with pytest.raises(ValueError, match="each client by itself"):
        Stacked(model())


@pytest.mark.parametrize(
    "model", [*MODELS, lambda: nn.Linear(6, 3), lambda: nn.Sequential(nn.Sequential(perceptron()))]
)
def test_what_is_one_passes_every_check_of_training_alone(model: Callable[[], nn.Module]) -> None:
    module = built(model)
    assert cohort.fits(module, PLAIN)
    training.check(module)
    training.check_apart(module, records())


def test_a_descent_with_more_than_a_rate_and_a_momentum_is_left_alone() -> None:
    assert cohort.fits(perceptron(), LocalOptimizer(0.1, 0.9))
    assert not cohort.fits(perceptron(), LocalOptimizer(0.1, proximal=0.1))


@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_each_client_s_own_model_s(model: Callable[[], nn.Module]) -> None:
    modules = [built(model, seed) for seed in range(3)]
    rows = torch.from_numpy(records(12).features)
    own = [torch.stack(each).detach() for each in zip(*(list(one.parameters()) for one in modules), strict=True)]
    found = Stacked(modules[0]).outputs(rows, own).view(3, 4, -1)
    for module, part, outputs in zip(modules, rows.view(3, 4, -1), found, strict=True):
        torch.testing.assert_close(outputs, module(part))


def test_labels_and_outputs_that_do_not_fit_are_said_before_any_training() -> None:
    labels = Dataset(records().features, np.full(40, 3))
    with pytest.raises(BadInput, match="0 to 2"):
        cohort.train(built(perceptron), members([records(), labels]), SGD(1.0, 1), PLAIN)
    with pytest.raises(UnsupportedModel, match="returned shape"):
        cohort.train(nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 3)), members([records()]), SGD(1.0, 1), PLAIN)
