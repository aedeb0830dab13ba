"""Apple's pfl: FederatedAveraging on its SimulatedBackend, as in its own PyTorch benchmarks, in this one process.

Runs in the simulators' environment. Without weighting, evaluation or privacy.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn
from work import BATCH, CLIENTS, COHORT, RATE, loss, model, records, serve


class Trained(nn.Module):
    """A model with the two methods that pfl asks for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.network = model(kind)

    def loss(self, features: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(features), labels)

    def metrics(self, features: torch.Tensor, labels: torch.Tensor, eval: bool = True) -> dict[str, float]:
        return {}


class Clock(TrainingProcessCallback):
    """When each round ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self.ends.append(time.perf_counter())
        return False, Metrics()


def rounds(kind: str, count: int) -> tuple[list[float], float]:
    """Seconds of each round, and the loss in the end."""
    data = {
        str(place): PyTorchTensorDataset([torch.from_numpy(features), torch.from_numpy(labels)])
        for place, (features, labels) in enumerate(records(kind))
    }
    sampler = get_user_sampler("random", [str(place) for place in range(CLIENTS)])
    everybody = FederatedDataset(data.__getitem__, sampler)
    module = Trained(kind)
    trained = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    clock = Clock()
    clock.ends.append(time.perf_counter())
    FederatedAveraging().run(
        NNAlgorithmParams(count, evaluation_frequency=10**9, train_cohort_size=COHORT, val_cohort_size=0),
        SimulatedBackend(everybody, everybody),
        trained,
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH, local_max_grad_norm=None
        ),
        callbacks=[clock],
    )
    return [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)], loss(
        module.network, kind
    )


if __name__ == "__main__":
    serve(f"pfl {version('pfl')}", rounds)
