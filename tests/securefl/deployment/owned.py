"""What owners installed at their sites: records of very different size and range, a model, and one that fails."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from securefl.data import Dataset

RECORD = "Ada Lovelace, born 1815, has diabetes"
"""What must never leave a site."""


def load(site: str) -> Dataset:
    """Three records, or three thousand."""
    count, width = {"ada": (3, 1e-3), "bob": (3000, 1.0), "cyd": (40, 5.0)}[site]
    features = (np.random.default_rng(count).normal(size=(count, 6)) * width).astype(np.float32)
    return Dataset(features, (features[:, 0] > 0).astype(np.int64), size=40)


def load_nothing(site: str) -> Dataset:
    raise ValueError(RECORD)


def model() -> nn.Module:
    return nn.Linear(6, 2)


def readable(input: torch.Tensor) -> bool:
    """Whether this is no stand-in by which torch takes gradients of single records."""
    try:
        return bool(input.sum() == input.sum())
    except RuntimeError:
        return False


class OnRecords(nn.Linear):
    """Fails on records, and says what is in them; not on the zeros and ones by which a model is tried beforehand."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if readable(input) and (input % 1).any():
            raise RuntimeError(f"{RECORD}: {input}")
        return super().forward(input)


class InTraining(nn.Linear):
    """Fails where gradients of single records are taken."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not readable(input):
            raise RuntimeError(RECORD)
        return super().forward(input)


class Always(nn.Linear):
    """Fails as soon as it is tried."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(RECORD)


def on_records() -> nn.Module:
    return OnRecords(6, 2)


def in_training() -> nn.Module:
    return InTraining(6, 2)


def always() -> nn.Module:
    return Always(6, 2)


def unmade() -> nn.Module:
    raise RuntimeError(RECORD)
