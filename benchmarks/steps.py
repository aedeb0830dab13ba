"""One step of DP-SGD at batch 256: ours, with noise that is safe to release, against Opacus's with torch's noise.

Both take a Poisson sample, clip, add noise and descend; Opacus by hooks, its default, and by ghost clipping. Beside
them plain SGD, and what clipping, noise and sampling are of our step. All run in turns, on one thread, since threads
that wait for each other measure what else the machine does; figures are medians.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from benchmarks.rows import Row, ratio_row, value_row
from securefl import vector
from securefl.data import Dataset
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import Words, grid, noised, poisson_sample
from securefl.training.batches import Batch
from securefl.training.gradients import add_clipped
from securefl.training.pace import choose
from securefl.training.private import Recorded, noises, step

BATCH, RECORDS, GOAL = 256, 60_000, 1.3
MECHANISM = DPSGD(noise_multiplier=1.0, sampling_rate=BATCH / RECORDS, steps=1000)

Step = Callable[[], object]


@dataclass(frozen=True)
class Seconds:
    """Of one step for one model. ``clipping``, ``noise`` and ``sampling`` are parts of ``ours``."""

    model: str
    ours: float
    opacus_hooks: float
    opacus_ghost: float
    plain: float
    clipping: float
    noise: float
    sampling: float

    @property
    def ratio(self) -> float:
        """Our step over Opacus's default one; the less the better."""
        return self.ours / self.opacus_hooks

    @property
    def of_plain(self) -> float:
        """Our step over one without privacy."""
        return self.ours / self.plain


def perceptron() -> nn.Module:
    """784-256-128-10, 235,146 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def lenet() -> nn.Module:
    """Two convolutions and two linear layers, 26,010 parameters: the network of Opacus's MNIST example."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1)),
        *(nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1)),
        *(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": perceptron, "lenet": lenet}


def rows(quick: bool) -> list[Row]:
    """What the benchmark of privacy reports of steps."""
    found: list[Row] = []
    for one in secure_noise_step_vs_torch_noise_step(7 if quick else 15):
        found += [
            value_row(f"secure_noise_step_vs_torch_noise_step_{one.model}", one.ratio, "x", quick, at_most=GOAL),
            ratio_row(f"dp_step_{one.model}", 1e3 * one.ours, "ms", "Opacus, ghost", 1e3 * one.opacus_ghost, quick),
            value_row(f"dp_step_vs_plain_step_{one.model}", one.of_plain, "x", quick),
            *(value_row(f"{part}_{one.model}", 1e3 * getattr(one, part), "ms", quick) for part in PARTS),
        ]
    return found


PARTS = ("clipping", "noise", "sampling")


def secure_noise_step_vs_torch_noise_step(repetitions: int = 15) -> list[Seconds]:
    """Seconds of all kinds of steps, for each model."""
    drawn = np.random.default_rng(0)
    data = Dataset(drawn.random((RECORDS, 1, 28, 28), np.float32), drawn.integers(0, 10, RECORDS))
    with _one_thread():
        return [_measured(name, model, data, repetitions) for name, model in MODELS.items()]


def _measured(name: str, model: Callable[[], nn.Module], data: Dataset, repetitions: int) -> Seconds:
    kinds = _steps(model, data)
    for run in kinds.values():
        run()
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repetitions):
        for kind, run in kinds.items():
            started = time.perf_counter()
            run()
            seconds[kind].append(time.perf_counter() - started)
    return Seconds(name, **{kind: median(taken) for kind, taken in seconds.items()})


def _steps(model: Callable[[], nn.Module], data: Dataset) -> dict[str, Step]:
    """Each on a model of its own."""
    made = [vector.build(model, 0).train() for _ in range(5)]
    dimension = len(vector.flatten(made[0]))
    total, whole = np.zeros(dimension), grid(MECHANISM.clip, dimension)
    return {
        "ours": _ours(made[0], data),
        "opacus_hooks": _opacus_hooks(made[1], data),
        "opacus_ghost": _opacus_ghost(made[2], data),
        "plain": _plain(made[3], data),
        "clipping": _clipping(made[4], data),
        "noise": lambda: noised(total, MECHANISM.noise_multiplier * MECHANISM.clip, whole),
        "sampling": lambda: poisson_sample(RECORDS, MECHANISM.sampling_rate),
    }


def _ours(module: nn.Module, data: Dataset) -> Step:
    pace, descent = choose(module, data, MECHANISM), _sgd(module)
    recorded = Recorded(module, pace.mode)
    words = Words("securefl training", os.urandom)
    noise = noises(MECHANISM, recorded.dimension, words)
    return lambda: step(recorded, data, MECHANISM, descent, words, noise, pace)


def _clipping(module: nn.Module, data: Dataset) -> Step:
    recorded = Recorded(module, choose(module, data, MECHANISM).mode)
    batch = _sampled(data)
    return lambda: add_clipped(
        recorded.gradients(batch), MECHANISM.clip, torch.zeros(recorded.dimension, dtype=torch.float64)
    )


def _plain(module: nn.Module, data: Dataset) -> Step:
    descent = _sgd(module)

    def run() -> None:
        batch = _sampled(data)
        descent.zero_grad()
        nn.functional.cross_entropy(module(batch.features), batch.labels).backward()  # type: ignore[no-untyped-call]
        descent.step()

    return run


def _opacus_hooks(module: nn.Module, data: Dataset) -> Step:
    recorded = GradSampleModule(module)
    descent = DPOptimizer(_sgd(module), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=BATCH)

    def run() -> None:
        batch = _sampled(data)
        descent.zero_grad()
        nn.functional.cross_entropy(recorded(batch.features), batch.labels).backward()  # type: ignore[no-untyped-call]
        descent.step()

    return run


def _opacus_ghost(module: nn.Module, data: Dataset) -> Step:
    recorded = GradSampleModuleFastGradientClipping(module, max_grad_norm=1.0)
    descent = DPOptimizerFastGradientClipping(
        _sgd(module), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=BATCH
    )
    loss = DPLossFastGradientClipping(recorded, descent, nn.CrossEntropyLoss())

    def run() -> None:
        batch = _sampled(data)
        descent.zero_grad()
        loss(recorded(batch.features), batch.labels).backward()
        descent.step()

    return run


def _sampled(data: Dataset) -> Batch:
    """A Poisson sample by torch's generator, as Opacus's loader draws it."""
    chosen = (torch.rand(RECORDS) < MECHANISM.sampling_rate).nonzero().flatten().numpy()
    return Batch(torch.from_numpy(data.features[chosen]), torch.from_numpy(data.labels[chosen]))


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    finally:
        torch.set_num_threads(threads)
