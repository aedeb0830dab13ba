"""Steps from one model to the next, in hex: whoever takes one must get these very bytes. Not a test."""

from __future__ import annotations

import numpy as np

from securefl import strategy
from securefl.plan import LocalOptimizer, Plan
from securefl.privacy.mechanism import SGD
from tests.vectors.session import Json

CLIENTS = ("a", "b", "c", "d")
WEIGHTS = (1.0, 0.1, 0.7, 1 / 3)
# Ties and subnormals, signs of zero, a sum that loses bits, and what float32 cannot hold.
MODEL = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, 0.1, 2.0**-126, 123456.789, 1 / 3)
TOTALS = (2.0**-25, 0.0, 2.0**-24 * 3, -(2.0**-25), 2.0**-150, -1e38, 1.0, -(2.0**-127), -(2.0**-28), 7 * 2.0**-28)


def plan() -> Plan:
    return Plan(
        job="vectors",
        protection="ckks",
        clients=CLIENTS,
        weights=WEIGHTS,
        bound=8.0,
        minimum=3,
        threshold=None,
        rounds=1,
        mechanism=SGD(1.0, 1),
        optimizer=LocalOptimizer(0.1),
        architecture="",
        dimension=len(MODEL),
        model_seed=0,
    )


def steps() -> list[Json]:
    """The mean's step for every cohort that a sum can be of, from awkward numbers."""
    cohorts = (("a", "b", "c", "d"), ("a", "b", "d"), ("d", "c", "b"))
    return [step(cohort) for cohort in cohorts]


def step(contributors: tuple[str, ...]) -> Json:
    model, total = np.array(MODEL, "<f4"), np.array(TOTALS, "<f8")
    moved = strategy.step(plan(), model, total, contributors)
    return {
        "weights": dict(zip(CLIENTS, WEIGHTS, strict=True)),
        "contributors": list(contributors),
        "model": model.tobytes().hex(),
        "total": total.tobytes().hex(),
        "moved": moved.astype("<f4").tobytes().hex(),
    }
