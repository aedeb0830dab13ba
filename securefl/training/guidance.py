"""What is added to a step's gradient and depends on no record: after the noise, so that no guarantee knows of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.plan import LocalOptimizer


def guide(
    descent: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    optimizer: LocalOptimizer,
    correction: NDArray[np.float32] | None,
) -> None:
    """Have ``descent`` add, before each step, FedProx's mu (w - w_0) and a correction (SCAFFOLD's c - c_i).

    w_0 is what the parameters are now. ``correction`` is flat, in the order of ``parameters``.
    """
    if not optimizer.proximal and correction is None:
        return
    before = [parameter.detach().clone() for parameter in parameters]
    added = None if correction is None else _split(correction, parameters)

    def add(*_: object) -> None:
        with torch.no_grad():
            for place, (parameter, start) in enumerate(zip(parameters, before, strict=True)):
                if parameter.grad is None:
                    continue
                if optimizer.proximal:
                    parameter.grad.add_(parameter - start, alpha=optimizer.proximal)
                if added is not None:
                    parameter.grad.add_(added[place])

    descent.register_step_pre_hook(add)


def _split(flat: NDArray[np.float32], parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    whole = torch.from_numpy(np.array(flat, np.float32))
    pieces = torch.split(whole, [parameter.numel() for parameter in parameters])
    return [piece.reshape(each.shape).to(each) for piece, each in zip(pieces, parameters, strict=True)]
