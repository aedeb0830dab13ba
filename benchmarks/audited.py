"""What the audit's benchmark audits: jobs on scikit-learn's digits and on a few numbers, as their files would say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl import job as jobs
from securefl.job import Job

_CLIENTS = ("s0", "s1", "s2")


def load_digits(client: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A third of the 1,797 pictures, by turns; pixels over 16."""
    from sklearn import datasets

    everything, own = datasets.load_digits(), _CLIENTS.index(client)
    return (everything.data[own::3] / 16).astype(np.float32), everything.target[own::3].astype(np.int64)


def digits_model() -> nn.Module:
    """Logistic regression on 8 by 8 pixels."""
    return nn.Linear(64, 10)


def load_small(client: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ten records of four made-up numbers: nothing in an audit depends on them."""
    generator = np.random.default_rng(_CLIENTS.index(client))
    return generator.normal(size=(10, 4)).astype(np.float32), generator.integers(0, 2, 10)


def small_model() -> nn.Module:
    """Logistic regression on four numbers."""
    return nn.Linear(4, 2)


def digits(noise: float, rate: float) -> Job:
    """60 rounds of one step each, so that each step is seen."""
    return _job("digits", {"noise_multiplier": noise}, {"sampling_rate": rate}, 60, "load_digits", "digits_model")


def small(rate: float, noise: float = 1.0, rounds: int = 6) -> Job:
    """Few records, few rounds."""
    privacy: dict[str, object] = {"noise_multiplier": noise}
    training: dict[str, object] = {"sampling_rate": rate}
    return _job("small", privacy, training, rounds, "load_small", "small_model")


def client_level() -> Job:
    """The same with noise that hides whole clients."""
    privacy: dict[str, object] = {"noise_multiplier": 0.5, "unit": "client"}
    return _job("small-clients", privacy, {"sampling_rate": 1.0}, 4, "load_small", "small_model")


def _job(
    name: str, privacy: dict[str, object], training: dict[str, object], rounds: int, loader: str, model: str
) -> Job:
    return jobs.checked(
        {
            "job": {"name": name, "rounds": rounds},
            "data": {
                "name": name,
                "loader": f"benchmarks.audited:{loader}",
                "clients": list(_CLIENTS),
                "sizes": dict.fromkeys(_CLIENTS, 599 if name == "digits" else 10),
            },
            "model": {"factory": f"benchmarks.audited:{model}"},
            "training": {"learning_rate": 0.5, "steps": 1, **training},
            "privacy": {"epsilon": 1000.0, "delta": 1e-5, "ledger": "ledgers", **privacy},
        }
    )
