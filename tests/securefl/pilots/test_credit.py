from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tune import goodness, simulate
from securefl.errors import BadInput, DataUnavailable
from securefl.pilots import Pilot, credit
from securefl.pilots.credit import BY_AGE, PILOT

SPLITS = [PILOT, BY_AGE]
# One card holder, as in the file: limit 20,000, 24 years old, two months late at first, then on time, then no use.
FIRST = [1, 20000, 2, 2, 1, 24, 2, 2, -1, -1, -2, -2, 3913, 3102, 689, 0, 0, 0, 0, 689, 0, 0, 0, 0, 1]


@pytest.mark.needs_data
@pytest.mark.parametrize("pilot", SPLITS, ids=lambda pilot: pilot.name)
def test_every_card_holder_is_at_one_bank_or_in_the_test_set(pilot: Pilot) -> None:
    banks = [pilot.load(client) for client in pilot.clients]
    assert tuple(map(len, banks)) == pilot.rows
    assert sum(map(len, banks)) + len(pilot.test()) == 30_000
    assert len(pilot.test()) == 6_000


@pytest.mark.needs_data
def test_defaults_are_those_that_are_published() -> None:
    parts = [*(PILOT.load(client) for client in PILOT.clients), PILOT.test()]
    assert sum(int(data.labels.sum()) for data in parts) == 6_636


@pytest.mark.needs_data
def test_the_first_card_holder_is_at_the_bank_of_university_graduates() -> None:
    data = PILOT.load("university")
    assert np.array_equal(data.features[0], credit._scale(np.array([FIRST]))[0])
    assert data.labels[0] == 1


def test_scaling_uses_constants_and_a_records_own_numbers_only() -> None:
    features = credit._scale(np.array([FIRST]))[0]
    assert len(features) == credit.FEATURES
    assert features[0] == pytest.approx(np.log10(200) / 4)  # of 20,000 dollars
    assert features[1:7].tolist() == [1, 1, 0, 0, 0, 0]  # late
    assert features[7:13].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 0])  # by a month more
    assert features[13:19].tolist() == [0, 0, 1, 1, 0, 0]  # paid duly
    assert features[19:25].tolist() == [0, 0, 0, 0, 1, 1]  # not used
    assert features[25:28] == pytest.approx([3913 / 20000, 3102 / 20000, 689 / 20000])
    assert features[31:].tolist() == pytest.approx([0, np.log10(6.89) / 4, 0, 0, 0, 0])


def test_sex_marriage_age_and_education_are_not_features() -> None:
    other = [*FIRST]
    other[2:6] = [1, 1, 2, 61]
    assert np.array_equal(credit._scale(np.array([FIRST])), credit._scale(np.array([other])))


def test_how_numbers_are_written_does_not_matter() -> None:
    head = b"ID,X1,Y\n"
    assert credit._numbers(head + b"1,500000,1\n") == credit._numbers(head + b"1,5.00E+05,1\r\n")
    assert credit._numbers(head + b"1,500000,1\n") != credit._numbers(head + b"1,500001,1\n")


def test_an_unknown_bank_is_refused() -> None:
    with pytest.raises(BadInput, match="credit-age has no client 'university': its clients are twenties"):
        BY_AGE.load("university")


def test_another_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "credit_default"
    folder.mkdir()
    (folder / "default_of_credit_card_clients.csv").write_text("ID,X1\n1,2\n")
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    credit._records.cache_clear()
    with pytest.raises(DataUnavailable, match="is not the expected file"):
        PILOT.load("university")


def test_the_two_splits_say_that_they_are_of_the_same_people() -> None:
    assert any("'credit-age' splits the same people" in hazard.text for hazard in PILOT.hazards)
    assert any("'credit' splits the same people" in hazard.text for hazard in BY_AGE.hazards)


@pytest.mark.needs_data
@pytest.mark.slow
@pytest.mark.parametrize("pilot", SPLITS, ids=lambda pilot: pilot.name)
def test_the_recipes_reach_the_promised_area(pilot: Pilot) -> None:
    clients, test = [pilot.load(client) for client in pilot.clients], pilot.test()
    assert goodness(pilot, simulate(pilot, pilot.public, clients), test) >= 0.76
    assert goodness(pilot, simulate(pilot, pilot.private, clients), test) >= 0.75
