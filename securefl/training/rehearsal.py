"""Whether training a module trains anything: tried once on made-up rows, before any record is used.

With some versions of peft, adapters under DP-SGD are not those that the model computes with: loss falls, epsilon rises,
and the model stays as it was.
"""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import vector
from securefl.data import Dataset
from securefl.errors import TrainingFailed
from securefl.mishaps import Tell
from securefl.training.batches import device_of, made_up
from securefl.training.private import Recorded, set_gradients

_STEP = 0.1  # large enough to be seen in a base of bfloat16


@runtime_checkable
class ChecksItself(Protocol):
    """A module that knows what else must change when its parameters do."""

    def check_moved(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Raise ``TrainingFailed`` unless going from one flat vector to the other changed all that it should."""


def rehearse(module: nn.Module, data: Dataset) -> None:
    """Take one step as private training takes them, by a gradient of ones, on a copy; ``data`` gives shapes only.

    Raises ``TrainingFailed`` where the step does not change what it should, ``UnsupportedModel`` as training does. For
    a module that does not check itself: nothing.
    """
    if not isinstance(module, ChecksItself):
        return
    local = copy.deepcopy(module)
    recorded = Recorded(local, "hooks")
    recorded.gradients(made_up(data, 2, device_of(recorded)))
    before = vector.flatten(local)
    set_gradients(local, torch.ones(len(before)))
    torch.optim.SGD([one for one in local.parameters() if one.requires_grad], lr=_STEP).step()
    module.check_moved(before, vector.flatten(local))


def confirm(module: nn.Module, before: NDArray[np.float32], tell: Tell) -> None:
    """The same of what training did, for the owner's own log: failing here might tell of the records."""
    if not isinstance(module, ChecksItself):
        return
    try:
        module.check_moved(before, vector.flatten(module))
    except TrainingFailed as error:
        tell(str(error))
