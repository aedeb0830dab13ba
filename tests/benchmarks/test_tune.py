from __future__ import annotations

import dataclasses
from typing import NoReturn

import numpy as np
import pytest
from torch import nn

from benchmarks.tune import FOLDS, Score, best, cross_validate, private_recipes, simulate
from securefl import vector
from securefl.data import Dataset
from securefl.evaluation import accuracy
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, SGD, Budget

RECIPE = Recipe(SGD(1.0, 3), LocalOptimizer(1.0), rounds=4)


def zero() -> nn.Module:
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def load(client: str) -> Dataset:
    features = np.random.default_rng(ord(client)).normal(size=(40, 2)).astype(np.float32)
    return Dataset(features, (features[:, 0] > 0).astype(np.int64))


def never() -> NoReturn:
    raise AssertionError("the test rows were read")


PILOT = Pilot(
    name="made-up",
    title="Made up",
    clients=("a", "b", "c"),
    classes=("left", "right"),
    load=load,
    test=never,
    model=zero,
    private=Recipe(DPSGD(2.0, 1.0, 1), LocalOptimizer(1.0), rounds=2),
    public=RECIPE,
    budget=Budget(3.0, 1e-5),
    hazards=(),
    source="",
    weights=(1.0, 0.5, 0.5),
    rows=(40, 40, 40),
)


def test_a_simulated_federation_learns() -> None:
    module = simulate(PILOT, RECIPE, [load(client) for client in PILOT.clients])
    assert accuracy(module, load("z")) > 0.9


def test_updates_are_averaged_by_declared_weights() -> None:
    clients, one_round = [load(client) for client in PILOT.clients], dataclasses.replace(RECIPE, rounds=1)
    models = [vector.flatten(simulate(weighing(*w), one_round, clients)) for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    together = vector.flatten(simulate(PILOT, one_round, clients))
    np.testing.assert_allclose(together, np.average(models, axis=0, weights=[2, 1, 1]), rtol=1e-5)


def weighing(*weights: float) -> Pilot:
    return dataclasses.replace(PILOT, weights=weights)


def test_cross_validation_predicts_every_training_row_and_reads_no_test_row() -> None:
    score = cross_validate(PILOT, RECIPE, draws=2)
    assert FOLDS == 5
    assert 0.9 < score.mean <= 1
    assert score.deviation == 0  # rate 1 and no noise: nothing is random
    assert score.loss > 0


def test_the_best_recipe_is_the_one_that_learns(capsys: pytest.CaptureFixture[str]) -> None:
    still = Recipe(SGD(1.0, 1), LocalOptimizer(1e-9), rounds=1)
    assert best(PILOT, [still, RECIPE], draws=1).recipe == RECIPE
    assert capsys.readouterr().out.count("unlucky") == 4  # both are finalists


def test_a_score_counts_against_luck() -> None:
    assert Score(RECIPE, mean=0.9, deviation=0.02, loss=0.1).unlucky == pytest.approx(0.86)


def test_private_candidates_fit_the_budget() -> None:
    budget = Budget(2.0, 1e-3)
    recipe = next(private_recipes(budget))
    assert 1.85 < epsilon([recipe.mechanism] * recipe.rounds, budget.delta) <= 2.0
