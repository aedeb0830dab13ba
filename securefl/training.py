"""Local training: (DP-)SGD on one client's records, from a module to a flat update. The only door to opacus.

Steps and sampling rate come from the mechanism and the declared size of the data set, never from a data loader. DP-SGD
is Abadi et al., CCS 2016, algorithm 1, with Poisson sampling; sums are divided by the *expected* batch size, since the
realised one depends on which records are there.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from securefl import vector
from securefl.data import Dataset
from securefl.errors import BadInput, TrainingFailed, UnsupportedModel
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Mechanism
from securefl.privacy.noise import Random, gaussian, poisson_sample

# Rows whose per-record gradients are held at once: bounds memory, changes nothing else.
_ROWS_AT_ONCE = 512
# Clipping happens in float32: aiming 2^-16 below the bound keeps a clipped gradient's norm under it despite rounding.
_CLIP_MARGIN = 1 - 2.0**-16


def check(module: nn.Module) -> None:
    """Raise ``UnsupportedModel``, naming layer and fix, for a module that cannot be trained record by record.

    BatchNorm is refused even when frozen: in training it mixes the records of a batch, so that no bound on one
    record's gradient bounds that record's influence. Layers are judged by their type: a ``forward`` that mixes records
    by hand (``x - x.mean(0)``) is not noticed, and the guarantee of DP-SGD does not cover it.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm):
            raise UnsupportedModel(
                f"layer {name or 'model'!r} is {type(layer).__name__}, which mixes the records of a batch: "
                "use GroupNorm (or LayerNorm) in its place"
            )
        if getattr(layer, "track_running_stats", False):
            raise UnsupportedModel(
                f"layer {name or 'model'!r} ({type(layer).__name__}) keeps statistics of the records: "
                "set track_running_stats=False"
            )
    candidate = copy.deepcopy(module).train()
    problems = [*ModuleValidator.validate(candidate), *GradSampleModule.validate(candidate)]
    if problems:
        raise UnsupportedModel(f"the model cannot be trained record by record: {problems[0]}")


def check_labels(module: nn.Module, data: Dataset) -> None:
    """Raise ``BadInput`` for labels that the model has no output for, looking at all of them and at no batch."""
    local = copy.deepcopy(module).eval()
    with torch.no_grad():
        classes = _outputs(local, data, np.arange(1)).shape[1]
    if not 0 <= int(data.labels.min()) <= int(data.labels.max()) < classes:
        raise BadInput(f"labels must be 0 to {classes - 1}, one for each of the model's outputs")


def train(
    module: nn.Module,
    data: Dataset,
    mechanism: Mechanism,
    optimizer: LocalOptimizer,
    random: Random = os.urandom,
) -> NDArray[np.float32]:
    """The flat update (trained minus given) of one round of local training; ``module`` itself is left as it was.

    All randomness (sampling, noise, dropout) is read from ``random``; torch's own generator ends as it began.

    Guarantee: under ``DPSGD`` the update is a function of ``mechanism.steps`` noised sums as that class describes them,
    an empty batch included, if ``random`` is unpredictable and ``data.declared_size`` is a constant. It depends on the
    records in no other way: whatever the given parameters, no record can make this fail. Under ``SGD``: none.

    Raises ``UnsupportedModel``, ``BadInput`` for labels that the model has no output for, and, under ``SGD`` only,
    ``TrainingFailed`` when the update is not finite.
    """
    check(module)
    check_labels(module, data)
    local = copy.deepcopy(module).train()
    before = vector.flatten(local)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # torch says this wherever hooks meet records that need no gradient, as opacus's always do; it loses nothing
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        torch.default_generator.manual_seed(int.from_bytes(random(8), "little", signed=True))
        if isinstance(mechanism, DPSGD):
            _descend_privately(local, data, mechanism, optimizer, random)
        else:
            _descend(local, data, mechanism, optimizer, random)
    update: NDArray[np.float32] = vector.flatten(local) - before
    if isinstance(mechanism, DPSGD):
        # Failing would tell that there is a record that made it fail, which no noise covers.
        np.nan_to_num(update, copy=False)
        return update
    if not np.isfinite(update).all():
        raise TrainingFailed("training ended in NaN or infinity: lower the learning rate, check the features' scale")
    return update


def _descend(module: nn.Module, data: Dataset, mechanism: SGD, optimizer: LocalOptimizer, random: Random) -> None:
    descent = _sgd(module, optimizer)
    expected = mechanism.sampling_rate * data.declared_size
    for _ in range(mechanism.steps):
        descent.zero_grad(set_to_none=False)
        for rows in _chunks(poisson_sample(len(data), mechanism.sampling_rate, random)):
            (_loss(module, data, rows) / expected).backward()  # type: ignore[no-untyped-call]
        descent.step()


def _descend_privately(
    module: nn.Module, data: Dataset, mechanism: DPSGD, optimizer: LocalOptimizer, random: Random
) -> None:
    # loss_reduction="sum": gradients are those of each record's own loss, whatever the size of its batch
    recorded = GradSampleModule(module, loss_reduction="sum")
    expected = mechanism.sampling_rate * data.declared_size
    descent = _NoisedDescent(_sgd(module, optimizer), mechanism, expected, random)
    for _ in range(mechanism.steps):
        chunks = list(_chunks(poisson_sample(len(data), mechanism.sampling_rate, random)))
        for last, rows in enumerate(chunks, start=1 - len(chunks)):
            descent.zero_grad()
            _record_gradients(recorded, data, rows)
            descent.signal_skip_step(last != 0)  # sums are kept until the batch is complete, then noised once
            descent.step()


class _NoisedDescent(DPOptimizer):  # type: ignore[misc]
    """Opacus's clipping and step, with noise from ``random`` instead of torch's generator.

    Why: torch's generator is not cryptographic, and whoever knows its seed removes the noise exactly.
    """

    def __init__(self, descent: torch.optim.Optimizer, mechanism: DPSGD, expected: float, random: Random) -> None:
        super().__init__(
            descent,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip * _CLIP_MARGIN,
            expected_batch_size=expected,
        )
        self._deviation = mechanism.noise_multiplier * mechanism.clip
        self._random = random

    def add_noise(self) -> None:
        """Noise of deviation ``noise_multiplier * clip`` on each coordinate of the gradient sum, added in float64."""
        for parameter in self.params:
            noise = gaussian(parameter.numel(), self._deviation, self._random)
            noised = parameter.summed_grad.double() + torch.from_numpy(noise).reshape(parameter.shape)
            parameter.grad = noised.to(parameter.dtype)


def _record_gradients(recorded: GradSampleModule, data: Dataset, rows: NDArray[np.int64]) -> None:
    """Leave each record's gradient in ``grad_sample``; for no rows, an empty stack, so that the step is noise alone."""
    trainable = [(name, p) for name, p in recorded.named_parameters() if p.requires_grad]
    if len(rows) == 0:
        for _, parameter in trainable:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        return
    _loss(recorded, data, rows).backward()  # type: ignore[no-untyped-call]
    for name, parameter in trainable:
        if parameter.grad_sample is None:
            unused = name.removeprefix("_module.")
            raise UnsupportedModel(f"parameter {unused!r} takes no part in the output: use it, or freeze it")
    _silence_overflows([parameter.grad_sample for _, parameter in trainable])


def _silence_overflows(gradients: list[torch.Tensor]) -> None:
    """A record whose gradient overflows counts as a gradient of zero: clipping could not bound NaN."""
    finite = torch.stack([gradient.flatten(1).isfinite().all(dim=1) for gradient in gradients]).all(dim=0)
    if not finite.all():
        for gradient in gradients:
            gradient[~finite] = 0


def _loss(module: nn.Module, data: Dataset, rows: NDArray[np.int64]) -> torch.Tensor:
    """Cross-entropy, summed over the rows."""
    labels = torch.from_numpy(data.labels[rows])
    return nn.functional.cross_entropy(_outputs(module, data, rows), labels, reduction="sum")


def _outputs(module: nn.Module, data: Dataset, rows: NDArray[np.int64]) -> torch.Tensor:
    outputs: torch.Tensor = module(torch.from_numpy(data.features[rows]))
    if outputs.ndim != 2 or len(outputs) != len(rows) or outputs.shape[1] < 2:
        raise UnsupportedModel(
            f"for {len(rows)} records the model returned shape {tuple(outputs.shape)}: "
            "return one row a record and one column a class, at least two"
        )
    return outputs


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows in pieces that fit in memory; one empty piece if there are none."""
    for start in range(0, max(len(rows), 1), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _sgd(module: nn.Module, optimizer: LocalOptimizer) -> torch.optim.SGD:
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trainable, lr=optimizer.learning_rate, momentum=optimizer.momentum)
