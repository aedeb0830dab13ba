"""The trained model as a file that others can load: safetensors, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn


def write_model(factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32], path: Path) -> None:
    """The module that ``factory`` makes from ``seed``, with these parameters, as a state dictionary in ``path``."""
    from safetensors.torch import save_file

    from securefl import vector

    module = vector.build(factory, seed)
    vector.load(module, parameters)
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
