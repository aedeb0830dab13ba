from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tune import simulate
from securefl.errors import BadInput, DataUnavailable
from securefl.evaluation import accuracy
from securefl.pilots import heart
from securefl.pilots.heart import PILOT


@pytest.mark.needs_data
def test_rows_and_positives_are_those_of_the_published_split() -> None:
    hospitals = {client: PILOT.load(client) for client in PILOT.clients}
    assert {client: (len(data), int(data.labels.sum())) for client, data in hospitals.items()} == {
        "cleveland": (199, 91),
        "hungarian": (172, 65),
        "switzerland": (30, 30),
        "va": (85, 66),
    }
    assert tuple(len(data) for data in hospitals.values()) == heart.ROWS


@pytest.mark.needs_data
def test_the_test_rows_are_those_of_the_published_split() -> None:
    counts = [(len(rows), int(labels[rows].sum())) for _, labels, _, rows in map(heart._split, PILOT.clients)]
    assert counts == [(104, 48), (89, 33), (16, 15), (45, 35)]
    assert len(PILOT.test()) == 254


@pytest.mark.needs_data
@pytest.mark.parametrize("client", PILOT.clients)
def test_training_and_test_rows_are_disjoint_and_complete(client: str) -> None:
    _, labels, training, held_out = heart._split(client)
    assert sorted([*training, *held_out]) == list(range(len(labels)))


@pytest.mark.needs_data
def test_features_are_thirteen_and_within_bounds() -> None:
    features = PILOT.test().features
    assert features.shape[1] == heart.FEATURES == 13
    assert np.abs(features).max() <= 1


def test_scaling_is_by_clinical_constants() -> None:
    # age 80, male, asymptomatic, 180 mm Hg, cholesterol 0, sugar 1, hypertrophy, 140 beats, angina, 9 mm; rest unused
    record = np.array([[80, 1, 4, 180, 0, 1, 2, 140, 1, 9, np.nan, np.nan, np.nan, 3]], dtype=np.float64)
    expected = [1, 1, -1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1]
    assert heart._scale(record).tolist() == [expected]


def test_rows_with_missing_values_in_used_columns_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "some.data"
    rows = "63,1,1,145,233,1,2,150,0,2.3,?,?,?,0", "29,1,2,140,?,0,0,170,0,0,1,0,3,0", "40,0,3,1,2,0,0,9,0,.5,1,?,3,2"
    file.write_text("\n".join(rows))
    assert heart._read(file)[:, 0].tolist() == [63, 40]


def test_declared_weights_follow_declared_rows() -> None:
    assert PILOT.rows == heart.ROWS
    assert PILOT.weights == tuple(round(rows / max(heart.ROWS), 2) for rows in heart.ROWS)


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(BadInput, match="no client 'basel'"):
        PILOT.load("basel")


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECUREFL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(heart, "_URL", "http://127.0.0.1:9/")  # the discard port: nothing listens, no network is used
    heart._split.cache_clear()
    with pytest.raises(DataUnavailable, match=r"fed_heart_disease/processed\.va\.data is missing"):
        PILOT.load("va")


@pytest.mark.needs_data
def test_without_privacy_the_recipe_reaches_pooled_training() -> None:
    clients = [PILOT.load(client) for client in PILOT.clients]
    # published: pooled training .795, FedAvg .748; the recipe samples at rate 1, so this is deterministic
    assert accuracy(simulate(PILOT, PILOT.public, clients), PILOT.test()) >= 0.79
