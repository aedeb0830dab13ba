"""How gradients are taken fastest here, and how many records fit in memory at once. Changes nothing but speed.

Time and memory are measured on rows of zeros, never on records: what depends on them might tell of them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Hashable
from typing import NamedTuple, get_args

import torch
from torch import nn

from securefl import vector
from securefl.data import Dataset
from securefl.privacy.mechanism import DPSGD, Training
from securefl.training.batches import Batch, device_of, loss, made_up
from securefl.training.gradients import add_clipped
from securefl.training.private import Mode, Recorded

# Bytes for what is held of a batch: activations, and gradients record by record.
_MEMORY = 2**28
# More rows than this at once gain nothing.
_MOST_ROWS = 512
# Rows that memory is measured on: two, since a layer that takes their number for another's size is then found.
_PROBE = 2
_DEFAULT: Mode = "ghost"
# Timing costs about ten steps.
_WORTH_TIMING = 100
_REPEATS = 4

_fastest: dict[Hashable, Mode] = {}


class Pace(NamedTuple):
    """How gradients are held, and of how many records at once. Of no consequence to any guarantee."""

    mode: Mode
    at_once: int


def choose(module: nn.Module, data: Dataset, mechanism: Training) -> Pace:
    """A pace for one round's steps; timed once a process for each architecture and batch size if the round is long.

    Raises ``UnsupportedModel`` for a layer whose gradients are not one a record.
    """
    if not isinstance(mechanism, DPSGD):
        return Pace(_DEFAULT, _rows_at_once(_activations(module, data)))
    if mechanism.steps < _WORTH_TIMING:
        return fitting(module, data, _DEFAULT)
    rows = math.ceil(mechanism.sampling_rate * data.declared_size)
    key = (vector.architecture(module), data.features.shape[1:], rows, device_of(module))
    if key not in _fastest:
        paces = [fitting(module, data, mode) for mode in get_args(Mode)]
        _fastest[key] = min(paces, key=lambda pace: seconds(module, data, pace, rows)).mode
    return fitting(module, data, _fastest[key])


def seconds(module: nn.Module, data: Dataset, pace: Pace, rows: int) -> float:
    """The time for one record's share of a clipped sum: the least of a few, on made-up rows, ``rows`` at most."""
    recorded = Recorded(copy.deepcopy(module).train(), pace.mode)
    batch = made_up(data, min(rows, pace.at_once), device_of(module))
    return min(_timed(recorded, batch) for _ in range(_REPEATS)) / len(batch.labels)


def fitting(module: nn.Module, data: Dataset, mode: Mode) -> Pace:
    """The pace in which gradients are held in this mode, of as many records as fit. ``module`` is left as it is.

    Raises ``UnsupportedModel`` as ``choose`` does.
    """
    recorded = Recorded(copy.deepcopy(module).train(), mode)
    unfolded = [0]
    for layer in recorded.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            layer.register_forward_hook(lambda layer, _, output: unfolded.append(_unfolded(layer, output)))
    gradients = recorded.gradients(made_up(data, _PROBE, device_of(module)))
    held = sum(one.memory for one in gradients) / _PROBE
    return Pace(mode, _rows_at_once(_activations(module, data) + held + max(unfolded)))


def _activations(module: nn.Module, data: Dataset) -> float:
    """Bytes that a forward pass keeps for the way back, for each row."""
    module = copy.deepcopy(module).train()
    weights = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(module, made_up(data, _PROBE, device_of(module)))
    return sum(kept.values()) / _PROBE


def _rows_at_once(memory: float) -> int:
    """How many rows of ``memory`` bytes each are held at once: one at least."""
    return max(1, min(_MOST_ROWS, int(_MEMORY // max(memory, 1))))


def _unfolded(layer: nn.Module, output: torch.Tensor) -> int:
    """Bytes of one row's patches, which opacus makes to take a convolution's gradient, and of its product with them."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not layer.weight.requires_grad:
        return 0
    patch = layer.in_channels * math.prod(layer.kernel_size)
    return output.element_size() * patch * (output[0, 0].numel() + layer.out_channels)


def _timed(recorded: Recorded, batch: Batch) -> float:
    total = torch.zeros(recorded.dimension, dtype=torch.float64, device=device_of(recorded))
    started = time.perf_counter()
    add_clipped(recorded.gradients(batch), 1.0, total)
    total[0].item()  # waits for the device
    return time.perf_counter() - started
