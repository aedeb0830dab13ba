from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import heart, pilots, pilots_figure
from benchmarks.tune import goodness
from securefl import evaluation
from securefl.pilots.digits import PILOT


@pytest.mark.parametrize("kind", ["secagg", "ckks"])
def test_a_curve_starts_before_training_and_has_a_point_a_round(kind: str) -> None:
    short = replace(PILOT, public=replace(PILOT.public, rounds=2))
    data = [short.load(client) for client in short.clients]
    curve = pilots.federated(short, kind, False, data, short.test())
    assert len(curve.values) == 3 and curve.epsilon is None
    assert curve.values[0] < 0.2 < 0.8 < curve.values[-1]


def test_a_private_curve_comes_with_its_epsilon() -> None:
    short = replace(PILOT, private=replace(PILOT.private, rounds=1))
    curve = pilots.federated(short, "secagg", True, [short.load(client) for client in short.clients], short.test())
    assert curve.epsilon is not None and 0 < curve.epsilon < PILOT.budget.epsilon


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    labels = [f"{kind}, {privacy}" for kind in ("secagg", "ckks") for privacy in ("private", "not")]
    pilots_figure.draw(tmp_path / "some.svg", PILOT, dict.fromkeys(labels, (0.1, 0.5, 0.9)), 0.95)
    assert (tmp_path / "some.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_twin_pools_all_clients() -> None:
    data = [PILOT.load(client) for client in PILOT.clients]
    assert goodness(PILOT, evaluation.twin(PILOT.model, 0, data, PILOT.public), PILOT.test()) > 0.93


def test_hospitals_count_equally_in_their_mean_and_by_rows_in_the_pool() -> None:
    assert heart.scores([1.0, 0.5], [30, 10]) == (pytest.approx(0.875), pytest.approx(0.75))


def test_the_chosen_recipe_is_in_the_grid() -> None:
    assert heart.CHOSEN in heart.GRID and len(heart.GRID) == 27


@pytest.mark.needs_data
@pytest.mark.slow
def test_heart_is_level_with_the_best_published_aggregation() -> None:
    pooled, hospitals = heart.protected(0)
    best = heart.PUBLISHED[heart.BEST_AGGREGATED]
    assert pooled >= best[0] and hospitals >= best[1]
