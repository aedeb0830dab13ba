"""A model of a million parameters and hardly any records: what is left of a round is protocol and transport."""

from __future__ import annotations

import time

import numpy as np
from torch import nn

from securefl import vector
from securefl.contribution import Material
from securefl.data import Dataset
from securefl.job import Job, checked
from securefl.keystream import local_work
from securefl.plan import Plan

_FEATURES, _CLASSES, _RECORDS = 999, 1000, 8


def load(site: str) -> Dataset:
    """Eight records at random."""
    random = np.random.default_rng(sum(site.encode()))
    features = random.uniform(-1, 1, (_RECORDS, _FEATURES)).astype(np.float32)
    return Dataset(features, random.integers(0, _CLASSES, _RECORDS), size=_RECORDS)


def model() -> nn.Module:
    """One layer: 999 x 1000 weights and 1000 biases."""
    return nn.Linear(_FEATURES, _CLASSES)


SITE = """
name = "{name}"

[data]
name = "large"
loader = "benchmarks.large:load"

[model]
factories = ["benchmarks.large:model"]

[accept]
rule = "policy"
"""


def job(protection: str, names: tuple[str, ...], rounds: int) -> Job:
    """Plain descent, one step a round: training is next to nothing."""
    return checked(
        {
            "job": {"name": "large", "rounds": rounds},
            "data": {
                "name": "large",
                "loader": "benchmarks.large:load",
                "clients": list(names),
                "sizes": dict.fromkeys(names, _RECORDS),
            },
            "model": {"factory": "benchmarks.large:model"},
            "training": {"learning_rate": 0.1, "sampling_rate": 1.0, "steps": 1},
            "privacy": {"enabled": False},
            "protection": {"kind": protection},
        }
    )


def training_seconds(plan: Plan) -> float:
    """What a client's training takes in a round of this plan."""
    material, start = Material(load("ada"), model), vector.flatten(model())
    local_work()
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        material.update(plan, start, lambda count: bytes(count))
        taken.append(time.perf_counter() - began)
    return min(taken)
