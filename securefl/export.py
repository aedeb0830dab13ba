"""The trained model as a file that others can load: safetensors, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn


def model_file(factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32]) -> bytes:
    """The module that ``factory`` makes from ``seed``, with these parameters, as a file: its state dictionary.

    Equal models give equal bytes, so that their SHA-256 names the model.
    """
    from safetensors.torch import save

    from securefl import vector

    module = vector.build(factory, seed)
    vector.load(module, parameters)
    return save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})
