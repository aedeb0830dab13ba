"""Language models: two pilots by the real protocol beside their local and central twins, what protection costs there,
and how far a canary at one institute is exposed.

Perplexity is of the answers' bytes, on the pooled held-out rows. The canary, a number of six digits that stands in
sixteen rows of one institute, is part of the federated runs of the first pilot. ``quick``: fewer rows and rounds, which
show that it runs and have no goals.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from benchmarks import keyboard
from benchmarks.rows import Row, value_row
from securefl import CKKS, Budget, Client, Dataset, LocalOptimizer, SecAgg, Server, federate, training, vector
from securefl.evaluation import accuracy
from securefl.llm import canaries
from securefl.llm.bytewise import predictions
from securefl.llm.canaries import Canary, Exposure
from securefl.pilots import Pilot, Recipe, clinic_llm, minilm_topics
from securefl.privacy.mechanism import SGD
from securefl.protection import Protection

TITLE = "Language models at nine institutes: LoRA on MedQuAD"

# At one institute of nine; a number that stands in one row is exposed little even without noise.
CANARY_AT, TIMES, ALTERNATIVES = "cdc", 16, 500
QUESTION = "What is the number of the patient?"
# One row of the canary's: as long as the question and the number.
LENGTH = len(QUESTION) + 8


@dataclass(frozen=True)
class Scale:
    """How much of a pilot: rows of a client, rounds."""

    rows: int
    rounds: int


WHOLE, QUICK = Scale(10_000, 10_000), Scale(32, 1)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject, with those of ``keyboard``; two hours of one core, or some minutes."""
    torch.set_num_threads(1)
    scale = QUICK if quick else WHOLE
    return [*_clinic(scale, quick), *_minilm(scale, quick), *keyboard.rows(quick)]


def _clinic(scale: Scale, quick: bool) -> list[Row]:
    pilot = clinic_llm.PILOT
    data, test = _records(pilot, scale), pilot.test()
    canary = canaries.drawn(QUESTION, 6, os.urandom)
    with_canary = data | {CANARY_AT: canaries.inserted(data[CANARY_AT], canary, TIMES, _as_the_pilots)}
    untouched = vector.build(pilot.model, 0)
    base = perplexity(untouched, test)
    plain, spent = federated(pilot, with_canary, pilot.public, scale, SecAgg())
    private, _ = federated(pilot, with_canary, pilot.private, scale, SecAgg())
    central = perplexity(_alone(pilot, _pooled(data), pilot.public, scale), test)
    local = np.mean([perplexity(_alone(pilot, one, pilot.public, scale), test) for one in data.values()])
    found, found_private = perplexity(plain, test), perplexity(private, test)
    before, exposed, hidden = (_exposure(module, canary) for module in (untouched, plain, private))
    share = protection_seconds(len(vector.flatten(plain)), len(data), CKKS()) / spent
    goals = (None, None) if quick else (1.05, 0.05)
    return [
        value_row("base_perplexity", base, "", quick),
        value_row("local_perplexity_mean", float(local), "", quick),
        value_row("federated_perplexity", found, "", quick),
        value_row("federated_dp_perplexity", found_private, "", quick),
        value_row("central_perplexity", central, "", quick),
        value_row("federated_vs_central_perplexity", found / central, "", quick, goals[0]),
        _at_least("base_vs_federated_perplexity", base / found, quick, None if quick else 1.1),
        value_row("protection_share_of_round", share, "", quick, goals[1]),
        value_row("canary_exposure_base", before.fitted, "bits", quick),
        value_row("canary_exposure_plain", exposed.fitted, "bits", quick),
        value_row("canary_exposure_dp", hidden.fitted, "bits", quick),
        value_row("canary_exposure_most", exposed.most, "bits", quick),
    ]


def _minilm(scale: Scale, quick: bool) -> list[Row]:
    pilot = minilm_topics.PILOT
    data, test = _records(pilot, scale), pilot.test()
    local = np.mean([accuracy(_alone(pilot, one, pilot.public, scale), test) for one in data.values()])
    found, _ = federated(pilot, data, pilot.public, scale, SecAgg())
    central = _alone(pilot, _pooled(data), pilot.public, scale)
    return [
        value_row("minilm_accuracy_local", 100 * float(local), "%", quick),
        value_row("minilm_accuracy_federated", 100 * accuracy(found, test), "%", quick),
        value_row("minilm_accuracy_central", 100 * accuracy(central, test), "%", quick),
    ]


def perplexity(module: nn.Module, data: Dataset) -> float:
    """Of what counts in the labels, all rows together."""
    with torch.no_grad():
        outputs = module.eval()(torch.from_numpy(data.features)).transpose(1, 2)
        return math.exp(nn.functional.cross_entropy(outputs, torch.from_numpy(data.labels)).item())


def federated(
    pilot: Pilot, data: dict[str, Dataset], recipe: Recipe, scale: Scale, protection: Protection
) -> tuple[nn.Module, float]:
    """The model of a federation by the real protocol, and the mean CPU seconds of a round of all in one process."""
    budget = Budget(epsilon=100.0, delta=pilot.budget.delta)  # rows of canaries count as any; nothing is refused here
    clients = [Client(name, one, pilot.model, budget=_if_private(recipe, budget)) for name, one in data.items()]
    weights = dict(zip(pilot.clients, pilot.weights, strict=True))
    rounds = min(recipe.rounds, scale.rounds)
    server = Server(pilot.model, protection, recipe.mechanism, recipe.optimizer, rounds=rounds, weights=weights)
    started = time.process_time()
    for _ in track(federate(server, clients), f"{pilot.name}, federated", rounds, transient=True):
        pass
    seconds = (time.process_time() - started) / rounds
    found = server.model()
    if found is None:
        raise AssertionError("this server reads the model")
    return _loaded(pilot, found), seconds


def protection_seconds(dimension: int, clients: int, protection: Protection) -> float:
    """CPU seconds of a round of all clients who have so many parameters and next to nothing to train."""
    size = dimension - dimension % 2

    def factory() -> nn.Module:
        return nn.Linear(size // 2, 2, bias=False)

    row = Dataset(np.zeros((1, size // 2), np.float32), np.zeros(1, np.int64))
    made = [Client(f"client-{number}", row, factory) for number in range(clients)]
    server = Server(factory, protection, SGD(1.0, 1), LocalOptimizer(0.1), rounds=3)
    driven = iter(federate(server, made))
    next(driven)  # with the keys, which later rounds do not make anew
    started = time.process_time()
    for _ in driven:
        pass
    return (time.process_time() - started) / 2


def _alone(pilot: Pilot, data: Dataset, recipe: Recipe, scale: Scale) -> nn.Module:
    """Trained in one place, in as many steps."""
    module = vector.build(pilot.model, 0)
    for _ in range(min(recipe.rounds, scale.rounds)):
        update = training.train(module, data, recipe.mechanism, recipe.optimizer)
        vector.load(module, vector.flatten(module) + update)
    return module


def _loaded(pilot: Pilot, parameters: NDArray[np.float32]) -> nn.Module:
    module = vector.build(pilot.model, 0)
    vector.load(module, parameters)
    return module


def _records(pilot: Pilot, scale: Scale) -> dict[str, Dataset]:
    loaded = {name: pilot.load(name) for name in pilot.clients}
    return {
        name: replace(one, features=one.features[: scale.rows], labels=one.labels[: scale.rows])
        for name, one in loaded.items()
    }


def _pooled(data: dict[str, Dataset]) -> Dataset:
    parts = list(data.values())
    return Dataset(np.concatenate([one.features for one in parts]), np.concatenate([one.labels for one in parts]))


def _as_the_pilots(pairs: Sequence[tuple[str, str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return predictions(pairs, clinic_llm.LENGTH, len(QUESTION))


def _exposure(module: nn.Module, canary: Canary) -> Exposure:
    return canaries.exposure(
        module, canary, ALTERNATIVES, lambda pairs: predictions(pairs, LENGTH, len(QUESTION)), os.urandom
    )


def _if_private(recipe: Recipe, budget: Budget) -> Budget | None:
    return None if isinstance(recipe.mechanism, SGD) else budget


def _at_least(name: str, value: float, quick: bool, goal: float | None) -> Row:
    """Its goal is a lower one."""
    return Row(name, value, "", None, None, None, goal, None if goal is None else value >= goal, quick)
