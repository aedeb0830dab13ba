from __future__ import annotations

import numpy as np
import pytest

from securefl import training, vector
from securefl.evaluation import accuracy
from securefl.pilots import minilm_topics
from securefl.pilots.minilm_topics import PILOT, TOPICS
from securefl.plan import LocalOptimizer
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.privacy.planning import affordable_rounds

pytestmark = pytest.mark.needs_data


def test_questions_are_as_declared_and_institutes_differ_in_what_is_asked() -> None:
    counts = []
    for client, rows in zip(PILOT.clients, PILOT.rows, strict=True):
        data = PILOT.load(client)
        assert len(data) == rows
        counts.append(np.bincount(data.labels, minlength=len(TOPICS)))
    assert min(int((one > 0).sum()) for one in counts) == 1
    assert (np.sum(counts, axis=0) > 0).all()
    assert set(PILOT.test().labels.tolist()) <= set(range(len(TOPICS)))


def test_the_weights_are_those_of_the_package() -> None:
    from securefl.llm import base

    found = base.encoder(str(minilm_topics.base()))
    assert sum(one.numel() for one in found.model.parameters()) == 22_713_216
    assert found.fresh == ()


def test_the_budget_covers_the_private_recipe() -> None:
    recipe, budget = PILOT.private, PILOT.budget
    assert isinstance(recipe.mechanism, DPSGD)
    assert epsilon([recipe.mechanism] * recipe.rounds, budget.delta) <= budget.epsilon
    assert affordable_rounds((recipe.mechanism,), budget) == recipe.rounds
    assert budget.delta <= 0.1 / max(PILOT.rows)


def test_an_institute_learns_its_own_questions_from_adapters_and_head() -> None:
    module, data = vector.build(PILOT.model, 0), PILOT.load("ninds")
    assert len(vector.flatten(module)) == 41_484
    training.check(module)
    training.check_apart(module, data)
    before = accuracy(module, data)
    update = training.train(module, data, SGD(0.25, 12), LocalOptimizer(0.05, momentum=0.9))
    vector.load(module, vector.flatten(module) + update)
    assert accuracy(module, data) > max(0.5, before)
