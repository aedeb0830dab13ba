"""The trained model as files that others can load: safetensors, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

ADAPTERS: Final = "adapters"


@runtime_checkable
class HasAdapters(Protocol):
    """A module whose trained part others know how to load without the rest, such as a language model's adapters."""

    def save_adapters(self, folder: Path) -> None: ...


def model_file(factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32]) -> bytes:
    """The module that ``factory`` makes from ``seed``, with these parameters, as a file: its state dictionary.

    Equal models give equal bytes, so that their SHA-256 names the model.
    """
    from safetensors.torch import save

    from securefl import vector

    module = vector.build(factory, seed)
    vector.load(module, parameters)
    return save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})


def save_adapters(factory: Callable[[], nn.Module], seed: int, parameters: NDArray[np.float32], beside: Path) -> None:
    """Write the trained part of such a module to the folder ``adapters`` in ``beside``; of any other module, nothing.

    Raises ``BadInput`` where it cannot be written.
    """
    from securefl import vector
    from securefl.run_folder import explained

    module = vector.build(factory, seed)
    if not isinstance(module, HasAdapters):
        return
    vector.load(module, parameters)
    with explained(beside / ADAPTERS):
        module.save_adapters(beside / ADAPTERS)
