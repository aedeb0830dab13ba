from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from securefl import training, vector
from securefl.errors import BadInput
from securefl.llm.adapters import Adapted
from securefl.llm.pretraining import Recipe, pretrained
from securefl.objective import IGNORED
from securefl.pilots import clinic_llm, medquad
from securefl.pilots.clinic_llm import PILOT
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.planning import affordable_rounds

pytestmark = pytest.mark.needs_data


@pytest.fixture
def little(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The data, and a base that a few steps have made in place of the pilot's own, which takes a minute."""
    for name in ("medquad", "shakespeare"):
        (tmp_path / name).symlink_to(data_folder / name)
    text = (data_folder / "shakespeare" / "input.txt").read_bytes()
    made = pretrained(text, Recipe(width=16, layers=1, heads=2, steps=2), tmp_path / "made")
    (tmp_path / "clinic_llm").symlink_to(made)
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    clinic_llm.base.cache_clear()
    yield
    clinic_llm.base.cache_clear()


def test_rows_are_as_declared_and_only_answers_count() -> None:
    for client, rows in zip(PILOT.clients, PILOT.rows, strict=True):
        data = PILOT.load(client)
        assert len(data) == rows
        assert data.features.shape[1] == data.labels.shape[1] == clinic_llm.LENGTH
        counted = data.labels != IGNORED
        assert counted.any(1).all() and not counted[:, 0].any()
    assert len(PILOT.test()) == 9 * 16
    assert PILOT.weights == tuple(round(rows / max(PILOT.rows), 2) for rows in PILOT.rows)


def test_no_pair_is_both_trained_on_and_held_out() -> None:
    for institute in medquad.INSTITUTES:
        both = (*medquad.training(institute), *medquad.held_out(institute))
        assert sorted(map(id, both)) == sorted(map(id, medquad.pairs(institute)))


def test_an_unknown_institute_is_refused() -> None:
    with pytest.raises(BadInput, match="no institute 'basel'"):
        PILOT.load("basel")


def test_the_budget_covers_the_private_recipe() -> None:
    recipe, budget = PILOT.private, PILOT.budget
    assert isinstance(recipe.mechanism, DPSGD)
    assert epsilon([recipe.mechanism] * recipe.rounds, budget.delta) <= budget.epsilon
    assert affordable_rounds((recipe.mechanism,), budget) == recipe.rounds
    assert budget.delta <= 0.1 / max(PILOT.rows)


@pytest.mark.usefixtures("little")
def test_the_model_trains_by_records_and_says_tokens() -> None:
    module, data = vector.build(PILOT.model, 1), PILOT.load("cdc")
    assert isinstance(module, Adapted)
    training.check(module)
    training.check_labels(module, PILOT.test())
    training.check_apart(module, data)
    assert module.vocabulary == len(PILOT.classes)
    update = training.train(module, data, DPSGD(1.0, 0.05, 1, 1.0), PILOT.private.optimizer)
    assert np.isfinite(update).all() and update.any()
