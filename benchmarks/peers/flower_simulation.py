"""Flower's simulation on Ray: FedAvg and a NumPyClient, as its PyTorch quickstart writes them, one CPU a client.

Runs in the simulators' environment. Without evaluation.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray
from torch import nn
from work import CLIENTS, COHORT, descend, loss, model, records, serve

Arrays = list[NDArray[Any]]


def arrays(module: nn.Module) -> Arrays:
    return [each.detach().numpy().copy() for each in module.parameters()]


def load(module: nn.Module, values: Arrays) -> None:
    with torch.no_grad():
        for each, value in zip(module.parameters(), values, strict=True):
            each.copy_(torch.from_numpy(np.array(value)))


class Trainer(NumPyClient):
    def __init__(self, kind: str, place: int) -> None:
        self._kind, self._place = kind, place

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        torch.set_num_threads(1)
        module, (features, labels) = model(self._kind), records(self._kind)[self._place]
        load(module, parameters)
        descend(module, torch.from_numpy(features), torch.from_numpy(labels))
        return arrays(module), len(labels), {}


class Timed(FedAvg):
    """Notes when each round is configured, and what it ended in."""

    begins: list[float]
    last: Arrays

    def configure_fit(self, *given: Any, **more: Any) -> Any:
        self.begins.append(time.perf_counter())
        return super().configure_fit(*given, **more)

    def aggregate_fit(self, *given: Any, **more: Any) -> Any:
        found = super().aggregate_fit(*given, **more)
        self.last = parameters_to_ndarrays(found[0])
        return found


def rounds(kind: str, count: int) -> tuple[list[float], float]:
    """Seconds of each round, from where it is configured to where the next one is, and the loss in the end."""
    module = model(kind)
    strategy = Timed(
        fraction_fit=COHORT / CLIENTS,
        fraction_evaluate=0.0,
        min_fit_clients=COHORT,
        min_available_clients=CLIENTS,
        initial_parameters=ndarrays_to_parameters(arrays(module)),
    )
    strategy.begins = []

    def client_of(context: Context) -> Any:
        return Trainer(kind, int(context.node_config["partition-id"])).to_client()

    def server_of(context: Context) -> ServerAppComponents:
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=count + 1))

    run_simulation(
        server_app=ServerApp(server_fn=server_of),
        client_app=ClientApp(client_fn=client_of),
        num_supernodes=CLIENTS,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    load(module, strategy.last)
    return [after - before for before, after in zip(strategy.begins, strategy.begins[1:], strict=False)], loss(
        module, kind
    )


if __name__ == "__main__":
    serve(f"Flower {version('flwr')}", rounds)
