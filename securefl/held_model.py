"""What a client holds of a run's model, where only clients can read it (CKKS). Elsewhere there is nothing to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl import global_state
from securefl.export import model_file, save_adapters
from securefl.global_state import Measured
from securefl.plan import Plan
from securefl.run_folder import MODEL, private_folder, write

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class HeldModel:
    """``vector``: the model and what moves with it (:mod:`securefl.global_state`), of the end of ``round``, 0 before
    the first; both None where nothing is held. ``factory``: of the module that it is the parameters of.
    """

    plan: Plan
    factory: Callable[[], nn.Module]
    vector: NDArray[np.float32] | None
    round: int | None

    @property
    def parameters(self) -> NDArray[np.float32] | None:
        """The model, flat."""
        return None if self.vector is None else global_state.parameters(self.plan, self.vector)

    @property
    def measured(self) -> Measured | None:
        """What the last round measured on held-out records."""
        return None if self.vector is None else global_state.measured(self.plan, self.vector)

    @property
    def surveyed(self) -> tuple[float, ...]:
        """What the survey counted."""
        return () if self.vector is None else global_state.surveyed(self.plan, self.vector)

    @property
    def file(self) -> bytes | None:
        """The model as a file."""
        model = self.parameters
        return None if model is None else model_file(self.factory, self.plan.model_seed, model)

    def write(self, folder: Path) -> None:
        """Write the model into a folder, and what others can load of it, where one is held."""
        file, model = self.file, self.parameters
        if file is None or model is None:
            return
        private_folder(folder)
        write(folder / MODEL, file)
        save_adapters(self.factory, self.plan.model_seed, model, folder)
