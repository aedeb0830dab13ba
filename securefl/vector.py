"""A module as one flat float32 vector and back: the only place that knows the order of parameters.

The order is that of ``named_parameters``. Only trainable parameters are in the vector: frozen ones and buffers never
travel, so every client gets them from the same factory and seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.errors import UnsupportedModel


def build(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module that ``factory`` makes when torch's generator starts from ``seed``; it then ends as it began.

    Raises ``UnsupportedModel`` if that is not a module with at least one trainable parameter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = factory()
    if not isinstance(module, nn.Module):
        raise UnsupportedModel(f"the model factory returned {type(module).__name__}: return a torch.nn.Module")
    if not _trainable(module):
        raise UnsupportedModel("the model has no trainable parameter: leave requires_grad on for at least one")
    return module


def flatten(module: nn.Module) -> NDArray[np.float32]:
    """A copy of the trainable parameters as one float32 vector."""
    with torch.no_grad():
        parts = [parameter.reshape(-1).to("cpu", torch.float32) for _, parameter in _trainable(module)]
        vector: NDArray[np.float32] = torch.cat(parts).numpy()
    return vector


def load(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Set the trainable parameters from a flat vector, in place. Raises ``ValueError`` if its shape does not fit."""
    parameters = _trainable(module)
    expected = sum(parameter.numel() for _, parameter in parameters)
    if vector.shape != (expected,):
        raise ValueError(f"the model has {expected} trainable parameters, the vector has shape {vector.shape}")
    start = 0
    with torch.no_grad():
        for _, parameter in parameters:
            piece = np.array(vector[start : start + parameter.numel()], dtype=np.float32)
            parameter.copy_(torch.from_numpy(piece).reshape(parameter.shape))
            start += parameter.numel()


def architecture(module: nn.Module) -> str:
    """SHA-256 (hex) of the ordered names and shapes of the trainable parameters: equal means vectors fit."""
    layout = [[name, list(parameter.shape)] for name, parameter in _trainable(module)]
    return hashlib.sha256(json.dumps(layout, separators=(",", ":")).encode()).hexdigest()


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
