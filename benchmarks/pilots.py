"""Every pilot under secagg and ckks, with and without differential privacy, by its own recipes; a figure of each.

Whole federations in one process: masks, ledgers and budgets as in any run, nobody drops out. The metric is the pilot's,
on its public test set, after every round. MNIST is trained in part: its smaller network, and its first clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from rich.progress import track
from torch import nn

from benchmarks import pilots_figure
from benchmarks.rows import Row, value_row
from benchmarks.tune import goodness
from securefl import CKKS, Client, SecAgg, Server, evaluation, federate, vector
from securefl.data import Dataset
from securefl.pilots import Pilot, pilot
from securefl.pilots.mnist import two_layer
from securefl.plan import PrivacyTerms

TITLE = "Pilots by their own recipes: the metric on the public test set after the last round"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
QUICK: Final = ("digits",)
NAMES: Final = ("heart", "credit", "credit-age", "students", "students-pass", "digits", "mnist")
MNIST_CLIENTS: Final = 20
PROTECTIONS: Final = {"secagg": SecAgg, "ckks": CKKS}


@dataclass(frozen=True)
class Curve:
    """One federation: the metric before training and after every round, and what its ledgers hold at last."""

    values: tuple[float, ...]
    epsilon: float | None


def rows(quick: bool) -> list[Row]:
    """The rows of this subject, and figures for the docs unless it is to be quick."""
    torch.set_num_threads(1)
    return [row for name in track(QUICK if quick else NAMES, "pilots", transient=True) for row in measured(name, quick)]


def measured(name: str, quick: bool, figures: Path = FIGURES) -> list[Row]:
    """The rows of one pilot; its figure is drawn unless it is to be quick."""
    chosen = _in_part(pilot(name))
    data, test = [chosen.load(client) for client in chosen.clients], chosen.test()
    central = _metric(chosen, evaluation.twin(chosen.model, 0, data, chosen.public), test)
    curves = {
        (kind, private): federated(chosen, kind, private, data, test)
        for kind in PROTECTIONS
        for private in (False, True)
    }
    if not quick:
        pilots_figure.draw(figures / f"pilot_{name}.svg", chosen, _labelled(chosen, curves), central)
    return [*_rows(name, chosen, curves, quick), value_row(f"{name} centralised", central, chosen.metric, quick)]


def federated(chosen: Pilot, kind: str, private: bool, data: Sequence[Dataset], test: Dataset) -> Curve:
    """A whole run in this process, with records of nobody else."""
    recipe, budget = (chosen.private, chosen.budget) if private else (chosen.public, None)
    clients = [
        Client(name, records, chosen.model, budget=budget, test=test)
        for name, records in zip(chosen.clients, data, strict=True)
    ]
    server = Server(
        chosen.model,
        PROTECTIONS[kind](),
        recipe.mechanism,
        recipe.optimizer,
        rounds=recipe.rounds,
        weights=dict(zip(chosen.clients, chosen.weights, strict=True)),
        privacy=PrivacyTerms(disjoint=chosen.disjoint),
    )
    module = vector.build(chosen.model, 0)
    values, epsilon = [_metric(chosen, module, test)], None
    for record in federate(server, clients):
        parameters = server.model()
        if parameters is None:  # under ckks a client reads it
            parameters = clients[0].model(server.run)
        if parameters is None or len(record.contributors) != len(clients):
            raise AssertionError(f"{record}: everybody was to take part and hold the model")
        vector.load(module, parameters)
        values.append(_metric(chosen, module, test))
        epsilon = max(record.epsilon.values()) if record.epsilon else None
    return Curve(tuple(values), epsilon)


def _in_part(chosen: Pilot) -> Pilot:
    """What is too large for a page of measurements, made smaller."""
    if chosen.name != "mnist":
        return chosen
    few = slice(MNIST_CLIENTS)
    return replace(
        chosen,
        clients=chosen.clients[few],
        weights=chosen.weights[few],
        rows=chosen.rows[few],
        model=two_layer,
        public=replace(chosen.public, rounds=chosen.private.rounds),
    )


def _metric(chosen: Pilot, module: nn.Module, test: Dataset) -> float:
    """As people read it: an error is positive."""
    return abs(goodness(chosen, module, test))


def _labelled(chosen: Pilot, curves: Mapping[tuple[str, bool], Curve]) -> dict[str, tuple[float, ...]]:
    found = {}
    for (kind, private), curve in curves.items():
        privacy = f"epsilon {curve.epsilon:.2f}" if private else "no differential privacy"
        found[f"{kind}, {privacy}"] = curve.values
    return found


def _rows(name: str, chosen: Pilot, curves: Mapping[tuple[str, bool], Curve], quick: bool) -> list[Row]:
    found = []
    for (kind, private), curve in curves.items():
        label = f"{name} {kind}" + (" private" if private else "")
        found.append(value_row(label, curve.values[-1], chosen.metric, quick))
        if curve.epsilon is not None:
            found.append(value_row(f"{label} epsilon", curve.epsilon, "", quick, chosen.budget.epsilon))
    return found
